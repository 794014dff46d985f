"""OpenAI's and Anthropic's own clients before an engine on a GPU, through our router: what works, one line each.

    python -m benchmarks.gpu.apis MODEL --engine sglang [-- ENGINE'S ARGUMENTS]

The model may be random (benchmarks/gpu/model.py): what is asked for is a form, such as a JSON schema or a call of a
tool, and not a meaning. Exits with 1 if anything did not work.
"""

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import openai

from .deployment import Deployment

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "sunny": {"type": "boolean"}},
    "required": ["city", "sunny"],
    "additionalProperties": False,
}
_TALK: Any = [{"role": "user", "content": "How is the weather in Paris?"}]
_TOKENS = 128
_ANY: Any = {"type": "any", "disable_parallel_tool_use": True}  # several calls may take more than _TOKENS
_CHECKS: list[tuple[str, Callable[["Clients"], object]]] = []


class Clients:
    """The clients of one endpoint."""

    def __init__(self, url: str, key: str, model: str) -> None:
        self.openai = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=120)
        self.anthropic = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=120)
        self.model = model


def check(name: str) -> Callable[[Callable[[Clients], object]], None]:
    """Add a check, which raises AssertionError or what a client raises."""
    return lambda function: _CHECKS.append((name, function))


def require_answer(text: str | None) -> None:
    """Require JSON of the schema."""
    found = json.loads(text or "")
    assert set(found) == {"city", "sunny"} and found["city"] in ("Paris", "Rome") and isinstance(found["sunny"], bool)


@check("chat")
def _(clients: Clients) -> None:
    answer = clients.openai.chat.completions.create(model=clients.model, messages=_TALK, max_tokens=16)
    assert answer.usage is not None and 0 < answer.usage.completion_tokens <= 16


@check("chat, JSON schema")
def _(clients: Clients) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "weather", "schema": _SCHEMA, "strict": True}}
    answer = clients.openai.chat.completions.create(
        model=clients.model, messages=_TALK, response_format=form, max_tokens=_TOKENS
    )
    require_answer(answer.choices[0].message.content)


@check("chat, JSON schema, streamed")
def _(clients: Clients) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "weather", "schema": _SCHEMA, "strict": True}}
    stream = clients.openai.chat.completions.create(
        model=clients.model, messages=_TALK, response_format=form, max_tokens=_TOKENS, stream=True
    )
    require_answer("".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))


@check("chat, tool required")
def _(clients: Clients) -> None:
    tools: Any = [{"type": "function", "function": {"name": "tell", "parameters": _SCHEMA, "strict": True}}]
    answer = clients.openai.chat.completions.create(
        model=clients.model,
        messages=_TALK,
        tools=tools,
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=_TOKENS,
    )
    call: Any = (answer.choices[0].message.tool_calls or [])[0]
    assert call.function.name == "tell"
    require_answer(call.function.arguments)


@check("messages")
def _(clients: Clients) -> None:
    answer = clients.anthropic.messages.create(model=clients.model, messages=_TALK, max_tokens=16)
    assert answer.stop_reason in ("max_tokens", "end_turn") and answer.usage.input_tokens > 0


@check("messages, streamed")
def _(clients: Clients) -> None:
    with clients.anthropic.messages.stream(model=clients.model, messages=_TALK, max_tokens=16) as stream:
        text = "".join(stream.text_stream)
        answer = stream.get_final_message()
    assert "".join(block.text for block in answer.content if block.type == "text") == text
    assert 0 < answer.usage.output_tokens <= 16


@check("messages, tool required")
def _(clients: Clients) -> None:
    tools: Any = [{"name": "tell", "input_schema": _SCHEMA}]
    answer = clients.anthropic.messages.create(
        model=clients.model, messages=_TALK, tools=tools, tool_choice=_ANY, max_tokens=_TOKENS
    )
    assert answer.stop_reason == "tool_use", answer
    call: Any = next(block for block in answer.content if block.type == "tool_use")
    assert call.name == "tell" and isinstance(call.input, dict)  # engines need not obey the schema: it is not strict


@check("messages, count_tokens")
def _(clients: Clients) -> None:
    counted = clients.anthropic.messages.count_tokens(model=clients.model, messages=_TALK)
    answer = clients.anthropic.messages.create(model=clients.model, messages=_TALK, max_tokens=1)
    computed, cached = answer.usage.input_tokens, answer.usage.cache_read_input_tokens or 0
    assert counted.input_tokens == computed + cached, (counted.input_tokens, computed, cached)


@check("responses, and one that goes on")
def _(clients: Clients) -> None:
    first = clients.openai.responses.create(model=clients.model, input="Hello", max_output_tokens=16)
    assert first.output_text is not None and first.usage is not None and first.usage.output_tokens > 0
    second = clients.openai.responses.create(
        model=clients.model, input="Go on", previous_response_id=first.id, max_output_tokens=16
    )
    assert second.usage is not None and second.usage.input_tokens > first.usage.input_tokens


@check("responses, JSON schema, streamed")
def _(clients: Clients) -> None:
    text: Any = {"format": {"type": "json_schema", "name": "weather", "schema": _SCHEMA, "strict": True}}
    with clients.openai.responses.stream(
        model=clients.model, input="The weather?", text=text, max_output_tokens=_TOKENS
    ) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    require_answer(answer.output_text)


@check("responses, tool required")
def _(clients: Clients) -> None:
    tools: Any = [{"type": "function", "name": "tell", "parameters": _SCHEMA, "strict": True}]
    answer = clients.openai.responses.create(
        model=clients.model,
        input="The weather?",
        tools=tools,
        tool_choice="required",
        parallel_tool_calls=False,
        max_output_tokens=_TOKENS,
    )
    call: Any = next(item for item in answer.output if item.type == "function_call")
    require_answer(call.arguments)


@check("embeddings")
def _(clients: Clients) -> None:
    found = clients.openai.embeddings.create(model=clients.model, input=["Paris", "Rome"])
    assert len(found.data) == 2 and abs(sum(value**2 for value in found.data[0].embedding) - 1) < 0.01


def run(clients: Clients) -> int:
    """Do all checks; how many did not work."""
    failed = 0
    for name, function in _CHECKS:
        try:
            function(clients)
            print(f"works    {name}", flush=True)
        except Exception as error:  # whatever a client raises: the next check is another matter
            failed += 1
            traceback.print_exc()
            print(f"FAILED   {name}: {type(error).__name__}: {error}", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--engine", choices=("native", "sglang", "vllm"), required=True)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    fixed = argparse.Namespace(
        extra=sys.argv[at + 1 :], workers=1, nodes=1, tensor_parallel=1, sequence_parallel=1, pipeline_parallel=1,
        quantization=None, context=4096, running=16, slurm=False,
    )  # fmt: skip
    given = parser.parse_args(sys.argv[1:at], fixed)
    with tempfile.TemporaryDirectory() as folder:
        deployment = Deployment(given, Path(folder))
        try:
            print(f"ready after {deployment.start():.0f} s", flush=True)
            endpoint = deployment.endpoint("routed")
            failed = run(Clients(endpoint.url, endpoint.key, endpoint.model))
        finally:
            deployment.stop()
    print(f"{len(_CHECKS) - failed} of {len(_CHECKS)} work with {given.engine}")
    return failed > 0


if __name__ == "__main__":
    raise SystemExit(main())
