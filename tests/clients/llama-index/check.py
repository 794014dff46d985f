"""LlamaIndex: OpenAILike, its embeddings, and an agent."""

import asyncio
import os

import pydantic
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from tried import MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, finish, recipe, tried

QUESTION = "What is the capital of France?"
ENDPOINT = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}
llm = OpenAILike(
    model=MODEL, is_chat_model=True, is_function_calling_model=True, context_window=2048, max_tokens=24, temperature=0,
    max_retries=0, **ENDPOINT,
)  # fmt: skip
agent = OpenAILike(
    model=SCRIPTED_MODEL, is_chat_model=True, is_function_calling_model=True, context_window=8192,
    api_base=f"{SCRIPTED_URL}/v1", api_key=SCRIPTED_KEY, max_retries=0,
)  # fmt: skip


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


@tried("chat")
def _():
    said = llm.chat([ChatMessage(role="user", content=QUESTION)])
    expect("Paris" in said.message.content, said)


@tried("chat, streamed")
def _():
    parts = [part.delta for part in llm.stream_chat([ChatMessage(role="user", content=QUESTION)])]
    expect("Paris" in "".join(parts) and len(parts) > 3, parts)


@tried("completions, streamed")
def _():
    plain = OpenAILike(model=MODEL, is_chat_model=False, max_tokens=6, temperature=0, max_retries=0, **ENDPOINT)
    parts = [part.delta for part in plain.stream_complete("The capital of France is")]
    expect("Paris" in "".join(parts), parts)


@tried("structured_predict (through a tool that must be called)")
def _():
    asked = llm.model_copy(update={"max_tokens": 120})
    said = asked.structured_predict(City, PromptTemplate(QUESTION))
    expect(isinstance(said, City), said)


@tried("structured_predict (json_schema)")
def _():
    asked = llm.model_copy(update={"max_tokens": 80, "should_use_structured_outputs": True})
    said = asked.structured_predict(City, PromptTemplate(QUESTION))
    expect(isinstance(said, City), said)


@tried("an agent with a tool, streamed, scripted")
def _():
    async def ask():
        return await FunctionAgent(tools=[get_weather], llm=agent).run('CALL get_weather {"city": "Paris"}')

    said = str(asyncio.run(ask()))
    expect("21 degrees in Paris" in said, said)


@tried("embeddings")
def _():
    made = OpenAILikeEmbedding(model_name=MODEL, max_retries=0, **ENDPOINT)
    found = made.get_text_embedding_batch(["a cat", "the stock exchange"])
    expect(len(found) == 2 and len(found[0]) == len(found[1]) > 100, [len(one) for one in found])


finish()
