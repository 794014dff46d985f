"""LangChain: ChatOpenAI, OpenAIEmbeddings, ChatAnthropic, and an agent."""

import pydantic
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from tried import MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, finish, recipe, tried

QUESTION = "What is the capital of France?"
model = ChatOpenAI(model=MODEL, temperature=0, max_tokens=24, max_retries=0)
agent = ChatOpenAI(model=SCRIPTED_MODEL, base_url=f"{SCRIPTED_URL}/v1", api_key=SCRIPTED_KEY, max_retries=0)


class City(pydantic.BaseModel):
    """A city"""

    name: str
    is_capital: bool


@tool
def get_weather(city: str) -> str:
    """The weather of a city"""
    return f"21 degrees in {city}"


@tried("the recipe")
def _():
    said = recipe()
    expect("Paris" in said, said)


@tried("chat")
def _():
    said = model.invoke(QUESTION)
    expect("Paris" in said.text and said.usage_metadata["output_tokens"] > 2, said)


@tried("chat, streamed, with usage")
def _():
    parts = list(ChatOpenAI(model=MODEL, temperature=0, max_tokens=24, stream_usage=True).stream(QUESTION))
    whole = parts[0]
    for part in parts[1:]:
        whole += part
    expect(len(parts) > 3 and "Paris" in whole.text and whole.usage_metadata["output_tokens"] > 2, whole)


@tried("batch of four")
def _():
    said = model.batch([QUESTION] * 4)
    expect(len(said) == 4 and all("Paris" in one.text for one in said), said)


@tried("completions")
def _():
    said = OpenAI(model=MODEL, temperature=0, max_tokens=6).invoke("The capital of France is")
    expect("Paris" in said, said)


@tried("with_structured_output (json_schema)")
def _():
    asked = ChatOpenAI(model=MODEL, temperature=0, max_tokens=80).with_structured_output(City, method="json_schema")
    said = asked.invoke(QUESTION)
    expect(isinstance(said, City), said)


@tried("with_structured_output (function_calling)")
def _():
    asked = ChatOpenAI(model=MODEL, temperature=0, max_tokens=120).with_structured_output(
        City, method="function_calling"
    )
    said = asked.invoke(QUESTION)
    expect(isinstance(said, City), said)


@tried("an agent with a tool, scripted")
def _():
    said = create_agent(agent, [get_weather]).invoke({"messages": [("user", 'CALL get_weather {"city": "Paris"}')]})
    expect("21 degrees in Paris" in said["messages"][-1].text and len(said["messages"]) == 4, said)


@tried("an agent with a tool, streamed, scripted")
def _():
    asked = {"messages": [("user", 'CALL get_weather {"city": "Rome"}')]}
    parts = create_agent(agent, [get_weather]).stream(asked, stream_mode="messages")
    text = "".join(part.text for part, _ in parts if part.type == "AIMessageChunk")
    expect("21 degrees in Rome" in text, text)


@tried("embeddings")
def _():
    made = OpenAIEmbeddings(model=MODEL, check_embedding_ctx_length=False, max_retries=0)
    found = made.embed_documents(["a cat", "the stock exchange"])
    expect(len(found) == 2 and len(found[0]) == len(found[1]) > 100, [len(one) for one in found])


@tried("ChatAnthropic")
def _():
    said = ChatAnthropic(model=MODEL, temperature=0, max_tokens=24, max_retries=0).invoke(QUESTION)
    expect("Paris" in said.text, said)


@tried("ChatAnthropic, an agent with a tool, scripted")
def _():
    other = ChatAnthropic(model=SCRIPTED_MODEL, base_url=SCRIPTED_URL, api_key=SCRIPTED_KEY, max_tokens=200)
    said = create_agent(other, [get_weather]).invoke({"messages": [("user", 'CALL get_weather {"city": "Paris"}')]})
    expect("21 degrees in Paris" in said["messages"][-1].text, said)


finish()
