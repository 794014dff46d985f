"""LiteLLM: the SDK, and the proxy before the endpoint."""

import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import litellm
import openai
import pydantic
from tried import HERE, MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, finish, recipe, tried

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
KEY = "sk-" + secrets.token_hex(16)
NAME = f"openai/{MODEL}"
SCRIPTED = {"model": f"openai/{SCRIPTED_MODEL}", "api_base": f"{SCRIPTED_URL}/v1", "api_key": SCRIPTED_KEY}


class City(pydantic.BaseModel):
    name: str
    is_capital: bool


def wait_for(client: openai.OpenAI, proxy: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and proxy.poll() is None:
        try:
            expect("demo" in [model.id for model in client.models.list()], "no model")
            return
        except openai.APIConnectionError:
            time.sleep(0.5)
    raise AssertionError("the proxy does not start")


@tried("the recipe")
def _():
    said = recipe()
    expect("Paris" in said, said)


@tried("chat")
def _():
    said = litellm.completion(NAME, QUESTION, temperature=0, max_tokens=24)
    expect("Paris" in said.choices[0].message.content and said.usage.completion_tokens > 2, said)


@tried("chat, streamed, with usage")
def _():
    parts = list(
        litellm.completion(
            NAME, QUESTION, temperature=0, max_tokens=24, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    expect("Paris" in text and parts[-1].usage.completion_tokens > 2, parts[-1])


@tried("text completion")
def _():
    said = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}", prompt="The capital of France is", max_tokens=6, temperature=0
    )
    expect("Paris" in said.choices[0].text, said)


@tried("structured output")
def _():
    said = litellm.completion(NAME, QUESTION, temperature=0, max_tokens=80, response_format=City)
    City.model_validate_json(said.choices[0].message.content)


@tried("tool calls and their results, scripted")
def _():
    talk = [{"role": "user", "content": 'CALL get_weather {"city": "Paris"}'}]
    message = litellm.completion(messages=talk, tools=[WEATHER], **SCRIPTED).choices[0].message
    (call,) = message.tool_calls
    expect(call.function.arguments == '{"city": "Paris"}', call)
    talk += [message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}]
    said = litellm.completion(messages=talk, tools=[WEATHER], **SCRIPTED)
    expect("21 degrees" in said.choices[0].message.content, said)


@tried("embeddings")
def _():
    found = litellm.embedding(NAME, ["a cat", "the stock exchange"])
    expect(len(found.data) == 2 and len(found.data[0]["embedding"]) > 100, found)


@tried("errors as LiteLLM's own (wrong key, unknown model)")
def _():
    for options, kind in (
        ({"model": NAME, "api_key": "sk-wrong"}, litellm.AuthenticationError),
        ({"model": "openai/other"}, litellm.NotFoundError),
    ):
        try:
            litellm.completion(messages=QUESTION, **options)
        except kind:
            continue
        raise AssertionError(f"no {kind.__name__}")


@tried("the proxy (chat, streamed)")
def _():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [str(Path(sys.executable).parent / "litellm"), "--config", str(HERE / "proxy.yaml")]
    proxy = subprocess.Popen(
        [*argv, "--host", "127.0.0.1", "--port", str(port)],
        stdout=sys.stderr,
        env={**os.environ, "LITELLM_MASTER_KEY": KEY},
    )
    try:
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0) as client:
            wait_for(client, proxy)
            parts = client.chat.completions.create(
                model="demo", messages=QUESTION, temperature=0, max_tokens=24, stream=True
            )
            text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        expect("Paris" in text, text)
    finally:
        proxy.terminate()
        proxy.wait()


finish()
