"""Haystack: the chat generator, an agent with a tool, and embedders."""

import json
import os
from typing import Annotated

from haystack.components.agents import Agent
from haystack.components.embedders import OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import tool
from haystack.utils import Secret
from pydantic import BaseModel
from tried import MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, finish, recipe, tried

BASE = os.environ["OPENAI_BASE_URL"]
QUESTION = [ChatMessage.from_user("What is the capital of France?")]


class City(BaseModel):
    name: str
    is_capital: bool


@tool
def get_weather(city: Annotated[str, "the city"]) -> str:
    """The weather of a city"""
    return f"21 degrees in {city}"


@tried("the recipe")
def _():
    said = recipe()
    expect("Paris" in said, said)


@tried("chat, streamed")
def _():
    parts = []
    generator = OpenAIChatGenerator(
        model=MODEL, api_base_url=BASE, streaming_callback=parts.append,
        generation_kwargs={"max_tokens": 24, "temperature": 0},
    )  # fmt: skip
    said = generator.run(QUESTION)["replies"][0]
    expect("Paris" in said.text and len(parts) > 3, (said, len(parts)))


@tried("structured output")
def _():
    kwargs = {"max_tokens": 80, "temperature": 0, "response_format": City}
    said = OpenAIChatGenerator(model=MODEL, api_base_url=BASE, generation_kwargs=kwargs).run(QUESTION)["replies"][0]
    City.model_validate(json.loads(said.text))


@tried("an agent with a tool, scripted")
def _():
    generator = OpenAIChatGenerator(
        model=SCRIPTED_MODEL, api_base_url=f"{SCRIPTED_URL}/v1", api_key=Secret.from_token(SCRIPTED_KEY)
    )
    said = Agent(chat_generator=generator, tools=[get_weather]).run(
        [ChatMessage.from_user('CALL get_weather {"city": "Paris"}')]
    )
    expect("21 degrees in Paris" in said["messages"][-1].text, said)


@tried("embeddings")
def _():
    found = OpenAITextEmbedder(model=MODEL, api_base_url=BASE).run("a cat")
    expect(len(found["embedding"]) > 100, found)


finish()
