"""Pydantic AI, over chat completions, responses and messages."""

import asyncio

import pydantic
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from tried import MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, finish, recipe, tried

QUESTION = "What is the capital of France?"
SHORT = {"temperature": 0, "max_tokens": 24}
LONGER = {"temperature": 0, "max_tokens": 120}
scripted = OpenAIProvider(base_url=f"{SCRIPTED_URL}/v1", api_key=SCRIPTED_KEY)


class City(pydantic.BaseModel):
    """A city"""

    name: str
    is_capital: bool


def get_weather(city: str) -> str:
    """The weather of a city"""
    return f"21 degrees in {city}"


@tried("the recipe")
def _():
    said = recipe()
    expect("Paris" in said, said)


@tried("chat, with instructions and usage")
def _():
    said = Agent(OpenAIChatModel(MODEL), instructions="Be brief.").run_sync(QUESTION, model_settings=SHORT)
    usage = said.usage if not callable(said.usage) else said.usage()
    expect("Paris" in said.output and usage.output_tokens > 2, said)


@tried("chat, streamed")
def _():
    async def ask():
        async with Agent(OpenAIChatModel(MODEL)).run_stream(QUESTION, model_settings=SHORT) as said:
            return [part async for part in said.stream_text(delta=True, debounce_by=None)]

    parts = asyncio.run(ask())
    expect("Paris" in "".join(parts) and len(parts) > 3, parts)


@tried("structured output (NativeOutput)")
def _():
    said = Agent(OpenAIChatModel(MODEL), output_type=NativeOutput(City), retries=0).run_sync(
        QUESTION, model_settings=LONGER
    )
    expect(isinstance(said.output, City), said)


@tried("structured output (ToolOutput)")
def _():
    said = Agent(OpenAIChatModel(MODEL), output_type=ToolOutput(City), retries=0).run_sync(
        QUESTION, model_settings=LONGER
    )
    expect(isinstance(said.output, City), said)


@tried("an agent with a tool, scripted")
def _():
    agent = Agent(OpenAIChatModel(SCRIPTED_MODEL, provider=scripted), tools=[get_weather])
    said = agent.run_sync('CALL get_weather {"city": "Paris"}')
    expect("21 degrees in Paris" in said.output, said)


@tried("an agent with a tool, streamed, scripted")
def _():
    async def ask():
        agent = Agent(OpenAIChatModel(SCRIPTED_MODEL, provider=scripted), tools=[get_weather])
        async with agent.run_stream('CALL get_weather {"city": "Rome"}') as said:
            return await said.get_output()

    said = asyncio.run(ask())
    expect("21 degrees in Rome" in said, said)


@tried("responses")
def _():
    said = Agent(OpenAIResponsesModel(MODEL)).run_sync(QUESTION, model_settings=SHORT)
    expect("Paris" in said.output, said)


@tried("responses, an agent with a tool, scripted")
def _():
    agent = Agent(OpenAIResponsesModel(SCRIPTED_MODEL, provider=scripted), tools=[get_weather])
    said = agent.run_sync('CALL get_weather {"city": "Paris"}')
    expect("21 degrees in Paris" in said.output, said)


@tried("messages")
def _():
    said = Agent(AnthropicModel(MODEL)).run_sync(QUESTION, model_settings=SHORT)
    expect("Paris" in said.output, said)


@tried("messages, an agent with a tool, scripted")
def _():
    provider = AnthropicProvider(base_url=SCRIPTED_URL, api_key=SCRIPTED_KEY)
    agent = Agent(AnthropicModel(SCRIPTED_MODEL, provider=provider), tools=[get_weather])
    said = agent.run_sync('CALL get_weather {"city": "Paris"}')
    expect("21 degrees in Paris" in said.output, said)


finish()
