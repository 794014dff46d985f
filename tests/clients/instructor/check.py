"""Instructor: each way in which it asks for structured output."""

import json

import instructor
import openai
from pydantic import BaseModel
from tried import MODEL, expect, finish, recipe, tried

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
FIELDS = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 120, "max_retries": 0}


class City(BaseModel):
    """A city"""

    name: str
    country: str


def ask(mode: instructor.Mode) -> None:
    client = instructor.from_openai(openai.OpenAI(max_retries=0), mode=mode)
    said = client.create(response_model=City, **FIELDS)
    expect(isinstance(said, City), said)


@tried("the recipe (json_schema)")
def _():
    said = json.loads(recipe())
    expect(set(said) == {"name", "country"}, said)


@tried("tools")
def _():
    ask(instructor.Mode.TOOLS)


@tried("tools, strict")
def _():
    ask(instructor.Mode.TOOLS_STRICT)


@tried("partial objects, streamed")
def _():
    client = instructor.from_openai(openai.OpenAI(max_retries=0), mode=instructor.Mode.JSON_SCHEMA)
    parts = list(client.create_partial(response_model=City, **FIELDS))
    expect(len(parts) > 2 and parts[-1].name, parts)


finish()
