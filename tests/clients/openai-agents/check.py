"""OpenAI's Agents SDK, over chat completions and over responses."""

import asyncio

import openai
import pydantic
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from tried import MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, finish, recipe, tried

set_tracing_disabled(True)
QUESTION = "What is the capital of France?"
SHORT = ModelSettings(max_tokens=24, temperature=0)


class City(pydantic.BaseModel):
    name: str
    is_capital: bool


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city"""
    return f"21 degrees in {city}"


def real(kind: type, **options: object) -> Agent:
    client = openai.AsyncOpenAI(max_retries=0)
    return Agent(name="a", model=kind(model=MODEL, openai_client=client), **{"model_settings": SHORT, **options})


def scripted(kind: type) -> Agent:
    client = openai.AsyncOpenAI(base_url=f"{SCRIPTED_URL}/v1", api_key=SCRIPTED_KEY, max_retries=0)
    return Agent(name="a", model=kind(model=SCRIPTED_MODEL, openai_client=client), tools=[get_weather])


def run_streamed(agent: Agent, question: str) -> tuple[str, set[str]]:
    async def ask():
        said = Runner.run_streamed(agent, question)
        kinds = {event.data.type async for event in said.stream_events() if event.type == "raw_response_event"}
        return said.final_output, kinds

    return asyncio.run(ask())


@tried("the recipe")
def _():
    said = recipe()
    expect("Paris" in said, said)


for name, kind in {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}.items():

    @tried(name)
    def _(kind=kind):
        said = Runner.run_sync(real(kind), QUESTION).final_output
        expect("Paris" in said, said)

    @tried(f"{name}, streamed")
    def _(kind=kind):
        said, kinds = run_streamed(real(kind), QUESTION)
        expect("Paris" in said and "response.output_text.delta" in kinds, (said, kinds))

    @tried(f"{name}, structured output")
    def _(kind=kind):
        longer = ModelSettings(max_tokens=80, temperature=0)
        said = Runner.run_sync(real(kind, output_type=City, model_settings=longer), QUESTION).final_output
        expect(isinstance(said, City), said)

    @tried(f"{name}, an agent with a tool, scripted")
    def _(kind=kind):
        said = Runner.run_sync(scripted(kind), 'CALL get_weather {"city": "Paris"}').final_output
        expect("21 degrees in Paris" in said, said)

    @tried(f"{name}, an agent with a tool, streamed, scripted")
    def _(kind=kind):
        said, _ = run_streamed(scripted(kind), 'CALL get_weather {"city": "Rome"}')
        expect("21 degrees in Rome" in said, said)


finish()
