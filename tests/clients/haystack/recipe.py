import os

from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage

generator = OpenAIChatGenerator(
    model="SmolLM2-135M-Instruct",
    api_base_url=os.environ["OPENAI_BASE_URL"],
    generation_kwargs={"max_tokens": 100, "temperature": 0},
)
answer = generator.run([ChatMessage.from_user("What is the capital of France?")])
print(answer["replies"][0].text)
