"""Inspect: an evaluation, and an agent with a tool."""

import json
import os
from pathlib import Path

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log
from inspect_ai.model import GenerateConfig, ResponseSchema, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import tool
from inspect_ai.util import json_schema
from pydantic import BaseModel
from tried import MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, finish, recipe, tried

os.environ["INSPECT_DISPLAY"] = "plain"
ASKED = 'CALL get_weather {"city": "Paris"}'
QUESTION = "What is the capital of France?"
REAL = {"base_url": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}


class City(BaseModel):
    name: str
    is_capital: bool


@tool
def get_weather():
    async def execute(city: str) -> str:
        """The weather of a city

        Args:
            city: The city
        """
        return f"21 degrees in {city}"

    return execute


def run(task: Task, name: str, base_url: str, api_key: str, **config: object):
    model = get_model(name, base_url=base_url, api_key=api_key, config=GenerateConfig(**config))
    (log,) = eval(task, model=model, log_dir="logs", max_retries=0)
    expect(log.status == "success", log.error)
    return log


@tried("the recipe")
def _():
    said = recipe("recipe.sh")
    (path,) = Path("logs").glob("*.eval")
    log = read_eval_log(str(path))
    expect(log.status == "success" and len(log.samples) == 1, said)
    expect("Paris" in log.samples[0].output.completion and log.results.scores[0].metrics["accuracy"].value == 1, log)


@tried("logprobs, several answers")
def _():
    task = Task(dataset=[Sample(input=QUESTION, target="Paris")], solver=generate(), scorer=includes())
    log = run(
        task, f"openai-api/slurminfer/{MODEL}", max_tokens=16, temperature=0, logprobs=True, top_logprobs=2,
        num_choices=2, seed=1, **REAL,
    )  # fmt: skip
    choices = log.samples[0].output.choices
    expect(len(choices) == 2 and len(choices[0].logprobs.content[0].top_logprobs) == 2, choices)


@tried("structured output")
def _():
    task = Task(dataset=[Sample(input=QUESTION)], solver=generate())
    schema = ResponseSchema(name="city", json_schema=json_schema(City), strict=True)
    log = run(task, f"openai-api/slurminfer/{MODEL}", max_tokens=80, temperature=0, response_schema=schema, **REAL)
    City.model_validate(json.loads(log.samples[0].output.completion))


@tried("a tool, scripted")
def _():
    task = Task(
        dataset=[Sample(input=ASKED, target="21 degrees in Paris")],
        solver=[use_tools(get_weather()), generate()],
        scorer=includes(),
    )
    log = run(task, f"openai-api/scripted/{SCRIPTED_MODEL}", f"{SCRIPTED_URL}/v1", SCRIPTED_KEY)
    expect(log.results.scores[0].metrics["accuracy"].value == 1, log.samples[0].output)


finish()
