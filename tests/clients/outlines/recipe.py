import openai
import outlines
from pydantic import BaseModel


class City(BaseModel, extra="forbid"):
    name: str
    country: str


model = outlines.from_vllm(openai.OpenAI(), "SmolLM2-135M-Instruct")
print(model("What is the capital of France?", City, max_tokens=100, temperature=0))
