"""Outlines: schemas, regular expressions and choices, as for vLLM's server and for OpenAI's."""

import json
from typing import Literal

import openai
import outlines
from outlines.types import Regex
from pydantic import BaseModel
from tried import MODEL, expect, finish, recipe, tried

QUESTION = "What is the capital of France?"
SHORT = {"max_tokens": 80, "temperature": 0}


class City(BaseModel):
    name: str
    country: str


@tried("the recipe (from_vllm, a schema)")
def _():
    City.model_validate_json(recipe())  # such a schema allows further keys


@tried("from_openai, a schema")
def _():
    said = json.loads(outlines.from_openai(openai.OpenAI(), MODEL)(QUESTION, City, **SHORT))
    expect(set(said) == {"name", "country"}, said)


@tried("from_vllm, a choice")
def _():
    said = outlines.from_vllm(openai.OpenAI(), MODEL)(QUESTION, Literal["Paris", "Rome"], **SHORT)
    expect(said in ("Paris", "Rome"), said)


@tried("from_vllm, a regular expression")
def _():
    said = outlines.from_vllm(openai.OpenAI(), MODEL)("A year?", Regex("[12][0-9]{3}"), **SHORT)
    expect(len(said) == 4 and said.isdigit(), said)


@tried("streamed")
def _():
    said = "".join(outlines.from_vllm(openai.OpenAI(), MODEL).stream(QUESTION, **SHORT))
    expect("Paris" in said, said)


finish()
