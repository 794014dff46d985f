"""Guidance: free text and JSON."""

import guidance
from pydantic import BaseModel
from tried import MODEL, expect, finish, recipe, tried


class City(BaseModel):
    name: str
    country: str


@tried("the recipe")
def _():
    said = recipe()
    expect("Paris" in said, said)


@tried("JSON of a schema")
def _():
    model = guidance.models.OpenAI(MODEL, echo=False)
    with guidance.user():
        model += "What is the capital of France?"
    with guidance.assistant():
        model += guidance.json("city", schema=City, max_tokens=100, temperature=0)
    City.model_validate_json(model["city"])


finish()
