"""OpenAI's SDK for Python."""

import asyncio
import json

import openai
import pydantic
from tried import MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, finish, recipe, tried

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
client = openai.OpenAI(max_retries=0, timeout=120)
agent = openai.OpenAI(base_url=f"{SCRIPTED_URL}/v1", api_key=SCRIPTED_KEY, max_retries=0, timeout=60)


class City(pydantic.BaseModel):
    name: str
    is_capital: bool


@tried("the recipe")
def _():
    said = recipe()
    expect("Paris" in said, said)


@tried("models")
def _():
    found = [model.id for model in client.models.list()]
    expect(found == [MODEL], found)
    expect(client.models.retrieve(MODEL).id == MODEL, MODEL)


@tried("chat")
def _():
    said = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=24)
    expect("Paris" in said.choices[0].message.content, said)
    expect(said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens, said.usage)


@tried("chat, streamed, with usage")
def _():
    parts = list(
        client.chat.completions.create(
            model=MODEL, messages=QUESTION, temperature=0, max_tokens=24, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    expect("Paris" in text and len(parts) > 3, parts)
    expect(parts[-1].usage.completion_tokens > 3, parts[-1])


@tried("chat, async, eight at once")
def _():
    async def ask():
        async with openai.AsyncOpenAI(max_retries=0, timeout=120) as many:
            wanted = dict(model=MODEL, messages=QUESTION, temperature=0, max_tokens=12)
            return await asyncio.gather(*(many.chat.completions.create(**wanted) for _ in range(8)))

    texts = {said.choices[0].message.content for said in asyncio.run(ask())}
    expect(len(texts) == 1 and "Paris" in texts.pop(), texts)


@tried("completions, n, stop, logprobs")
def _():
    said = client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=8, n=2, stop=["."], logprobs=2, temperature=0
    )
    expect(len(said.choices) == 2 and "Paris" in said.choices[0].text, said)
    expect("." not in said.choices[0].text and said.choices[0].finish_reason == "stop", said)
    expect(len(said.choices[0].logprobs.top_logprobs[0]) in (2, 3), said.choices[0].logprobs)


@tried("chat logprobs")
def _():
    said = client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    content = said.choices[0].logprobs.content
    expect(len(content) == said.usage.completion_tokens and len(content[0].top_logprobs) == 3, content)


@tried("structured output (parse)")
def _():
    said = client.chat.completions.parse(
        model=MODEL, messages=QUESTION, response_format=City, temperature=0, max_tokens=80
    )
    expect(isinstance(said.choices[0].message.parsed, City), said)


@tried("structured output, streamed")
def _():
    with client.chat.completions.stream(
        model=MODEL, messages=QUESTION, response_format=City, temperature=0, max_tokens=80
    ) as stream:
        kinds = {event.type for event in stream}
        said = stream.get_final_completion()
    expect("content.delta" in kinds and isinstance(said.choices[0].message.parsed, City), said)


@tried("a tool that must be called, by the model")
def _():
    wanted = {"type": "function", "function": {"name": "get_weather"}}
    said = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "How is the weather in Paris?"}], tools=[WEATHER],
        tool_choice=wanted, temperature=0, max_tokens=120,
    )  # fmt: skip
    (call,) = said.choices[0].message.tool_calls
    expect(call.function.name == "get_weather" and "city" in json.loads(call.function.arguments), call)


@tried("tool calls and their results, scripted")
def _():
    talk = [{"role": "user", "content": 'CALL get_weather {"city": "Paris"}\nCALL get_weather {"city": "Rome"}'}]
    said = agent.chat.completions.create(model=SCRIPTED_MODEL, messages=talk, tools=[WEATHER])
    calls = said.choices[0].message.tool_calls
    expect([json.loads(call.function.arguments)["city"] for call in calls] == ["Paris", "Rome"], calls)
    talk.append(said.choices[0].message)
    talk += [{"role": "tool", "tool_call_id": call.id, "content": f"{call.id}: 21 degrees"} for call in calls]
    said = agent.chat.completions.create(model=SCRIPTED_MODEL, messages=talk, tools=[WEATHER])
    expect(all(call.id in said.choices[0].message.content for call in calls), said)


@tried("tool calls, streamed, scripted")
def _():
    talk = [{"role": "user", "content": 'CALL get_weather {"city": "Paris"}'}]
    with agent.chat.completions.stream(model=SCRIPTED_MODEL, messages=talk, tools=[WEATHER]) as stream:
        kinds = {event.type for event in stream}
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    expect("tool_calls.function.arguments.delta" in kinds, kinds)
    expect(json.loads(call.function.arguments) == {"city": "Paris"}, call)


@tried("embeddings")
def _():
    texts = ["a cat", "a small cat", "the stock exchange"]
    found = client.embeddings.create(model=MODEL, input=texts)
    expect([one.index for one in found.data] == [0, 1, 2], found)
    expect(len({len(one.embedding) for one in found.data}) == 1 and len(found.data[0].embedding) > 100, found)


@tried("responses")
def _():
    said = client.responses.create(
        model=MODEL, input="What is the capital of France?", max_output_tokens=24, temperature=0, store=False
    )
    expect("Paris" in said.output_text and said.usage.output_tokens > 3, said)


@tried("responses, streamed, with a tool, scripted")
def _():
    tool = {"type": "function", **WEATHER["function"], "strict": True}
    talk = [{"role": "user", "content": 'CALL get_weather {"city": "Paris"}'}]
    with agent.responses.stream(model=SCRIPTED_MODEL, input=talk, tools=[tool], store=False) as stream:
        kinds = [event.type for event in stream]
        said = stream.get_final_response()
    (call,) = [item for item in said.output if item.type == "function_call"]
    expect("response.function_call_arguments.delta" in kinds and kinds[-1] == "response.completed", kinds)
    answered = {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}
    more = [*talk, call.model_dump(include={"type", "call_id", "name", "arguments"}), answered]
    said = agent.responses.create(model=SCRIPTED_MODEL, input=more, tools=[tool], store=False)
    expect("21 degrees" in said.output_text, said)


@tried("files and batches")
def _():
    row = {"model": MODEL, "messages": QUESTION, "max_tokens": 4}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": row}
    file = client.files.create(file=("rows.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )
    expect(client.batches.retrieve(batch.id).input_file_id == file.id, batch)
    client.batches.cancel(batch.id)
    expect(client.files.content(file.id).text == json.dumps(line), file)


@tried("errors (wrong key, unknown model, invalid value, too long)")
def _():
    for call, kind in (
        (lambda: openai.OpenAI(api_key="sk-wrong", max_retries=0).models.list(), openai.AuthenticationError),
        (lambda: client.chat.completions.create(model="other", messages=QUESTION), openai.NotFoundError),
        (lambda: client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=9), openai.BadRequestError),
    ):
        try:
            call()
        except kind as error:
            expect(error.body["message"], error.body)
        else:
            raise AssertionError(f"no {kind.__name__}")
    try:
        client.completions.create(model=MODEL, prompt="word " * 20_000)
    except openai.BadRequestError as error:
        expect(error.code == "context_length_exceeded", error.body)
    else:
        raise AssertionError("no error for a prompt that is too long")


finish()
