"""Semantic Kernel: chat, streamed and whole, and a function that is called."""

import asyncio

import openai
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings
from semantic_kernel.contents import ChatHistory
from semantic_kernel.functions import kernel_function
from tried import MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, finish, recipe, tried


class Weather:
    @kernel_function
    def get_weather(self, city: str) -> str:
        """The weather of a city"""
        return f"21 degrees in {city}"


def history(text: str) -> ChatHistory:
    made = ChatHistory()
    made.add_user_message(text)
    return made


@tried("the recipe")
def _():
    said = recipe()
    expect("Paris" in said, said)


@tried("chat, streamed")
def _():
    async def ask():
        service = OpenAIChatCompletion(ai_model_id=MODEL, async_client=openai.AsyncOpenAI(max_retries=0))
        settings = OpenAIChatPromptExecutionSettings(max_tokens=24, temperature=0)
        parts = service.get_streaming_chat_message_content(history("What is the capital of France?"), settings)
        return [str(part) async for part in parts]

    parts = asyncio.run(ask())
    expect("Paris" in "".join(parts) and len(parts) > 3, parts)


@tried("a function that is called, scripted")
def _():
    async def ask():
        client = openai.AsyncOpenAI(base_url=f"{SCRIPTED_URL}/v1", api_key=SCRIPTED_KEY, max_retries=0)
        kernel = Kernel()
        kernel.add_plugin(Weather(), "weather")
        settings = OpenAIChatPromptExecutionSettings(function_choice_behavior=FunctionChoiceBehavior.Auto())
        service = OpenAIChatCompletion(ai_model_id=SCRIPTED_MODEL, async_client=client)
        asked = history('CALL weather-get_weather {"city": "Paris"}')
        return str(await service.get_chat_message_content(asked, settings, kernel=kernel))

    said = asyncio.run(ask())
    expect("21 degrees in Paris" in said, said)


finish()
