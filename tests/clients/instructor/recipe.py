import instructor
import openai
from pydantic import BaseModel


class City(BaseModel):
    name: str
    country: str


client = instructor.from_openai(openai.OpenAI(), mode=instructor.Mode.JSON_SCHEMA)
city = client.create(
    response_model=City,
    model="SmolLM2-135M-Instruct",
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    max_tokens=100,
    temperature=0,
)
print(city.model_dump_json())
