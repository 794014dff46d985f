"""Anthropic's SDK for Python, against /v1/messages."""

import anthropic
from tried import MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, finish, recipe, tried

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
GREEDY = {"extra_body": {"temperature": 0}}  # the SDK has no parameter for it any more
CALL = [{"role": "user", "content": [{"type": "text", "text": 'CALL get_weather {"city": "Paris"}'}]}]
client = anthropic.Anthropic(max_retries=0, timeout=120)
agent = anthropic.Anthropic(base_url=SCRIPTED_URL, api_key=SCRIPTED_KEY, max_retries=0, timeout=60)


@tried("the recipe")
def _():
    said = recipe()
    expect("Paris" in said, said)


@tried("messages")
def _():
    said = client.messages.create(model=MODEL, messages=QUESTION, max_tokens=24, **GREEDY, system="Be brief.")
    expect(said.type == "message" and "Paris" in said.content[0].text, said)
    expect(said.usage.input_tokens > 5 and said.usage.output_tokens > 2, said.usage)


@tried("messages, streamed")
def _():
    with client.messages.stream(model=MODEL, messages=QUESTION, max_tokens=24, **GREEDY) as stream:
        kinds = [event.type for event in stream]
        said = stream.get_final_message()
    expect(kinds[0] == "message_start" and kinds[-1] == "message_stop" and "text" in kinds, kinds)
    expect("Paris" in said.content[0].text and said.usage.output_tokens > 2, said)


@tried("stop sequences, max_tokens")
def _():
    said = client.messages.create(model=MODEL, messages=QUESTION, max_tokens=24, **GREEDY, stop_sequences=["Paris"])
    expect(said.stop_reason == "stop_sequence" and said.stop_sequence == "Paris", said)
    said = client.messages.create(model=MODEL, messages=QUESTION, max_tokens=2, **GREEDY)
    expect(said.stop_reason == "max_tokens", said)


@tried("token counts")
def _():
    counted = client.messages.count_tokens(model=MODEL, messages=QUESTION).input_tokens
    usage = client.messages.create(model=MODEL, messages=QUESTION, max_tokens=1).usage
    expect(counted == usage.input_tokens + usage.cache_read_input_tokens, (counted, usage))


@tried("a tool that must be called, by the model")
def _():
    said = client.messages.create(
        model=MODEL, messages=QUESTION, max_tokens=120, **GREEDY, tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
    )  # fmt: skip
    (use,) = [block for block in said.content if block.type == "tool_use"]
    expect(use.name == "get_weather" and "city" in use.input and said.stop_reason == "tool_use", said)


@tried("tool use and its result, streamed, scripted")
def _():
    with agent.messages.stream(model=SCRIPTED_MODEL, messages=CALL, max_tokens=200, tools=[WEATHER]) as stream:
        kinds = {event.type for event in stream}
        said = stream.get_final_message()
    (use,) = [block for block in said.content if block.type == "tool_use"]
    expect(use.input == {"city": "Paris"} and said.stop_reason == "tool_use" and "input_json" in kinds, (said, kinds))
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "21 degrees"}]}
    talk = [*CALL, {"role": "assistant", "content": said.content}, {"role": "user", "content": [result]}]
    said = agent.messages.create(model=SCRIPTED_MODEL, messages=talk, max_tokens=200, tools=[WEATHER])
    expect("21 degrees" in said.content[0].text and said.stop_reason == "end_turn", said)


@tried("models")
def _():
    found = [model.id for model in client.models.list()]
    expect(found == [MODEL], found)


@tried("errors (wrong key, unknown model, invalid value)")
def _():
    wrong = anthropic.Anthropic(api_key="sk-wrong", max_retries=0)
    for call, kind in (
        (lambda: wrong.messages.create(model=MODEL, messages=QUESTION, max_tokens=1), anthropic.AuthenticationError),
        (lambda: client.messages.create(model="other", messages=QUESTION, max_tokens=1), anthropic.NotFoundError),
        (lambda: client.messages.create(model=MODEL, messages=QUESTION, max_tokens=0), anthropic.BadRequestError),
    ):
        try:
            call()
        except kind as error:
            expect(error.body["type"] == "error" and error.body["error"]["message"], error.body)
        else:
            raise AssertionError(f"no {kind.__name__}")


finish()
