"""Whatever clients and engines send: an error that names a field, or an answer; never anything else."""

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from slurminfer.router.relay.surfaces.responses.asked import Asked, read
from slurminfer.router.relay.surfaces.responses.fields import IGNORED, OBEYED, REFUSED, RENAMED
from slurminfer.router.relay.surfaces.responses.history import History
from slurminfer.router.relay.surfaces.responses.items import Item, named, shown
from slurminfer.router.relay.surfaces.responses.translation import ResponsesTranslation
from slurminfer.router.relay.surfaces.translation import TranslationError
from slurminfer.router.responses.record import Record

from .chats import DONE, ID, NOW, data, events_of, translation

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6)
)
NAMES = st.sampled_from([*OBEYED, *IGNORED, *REFUSED, *RENAMED, "top_k"])
WORDS = st.sampled_from(
    ["message", "function_call", "function_call_output", "reasoning", "item_reference", "input_text", "input_image",
     "output_text", "user", "assistant", "function", "namespace", "allowed_tools", "auto", "json_schema", "text"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["type", "role", "content", "text", "id", "call_id", "name", "arguments", "output", "tools", "format", "schema",
     "effort", "mode", "image_url", "namespace", "parameters", "summary"]
)  # fmt: skip
JSON = st.recursive(
    SCALARS | WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5)
)
ENGINE_KEYS = st.sampled_from(
    ["choices", "delta", "message", "content", "reasoning", "reasoning_content", "tool_calls", "function", "name",
     "arguments", "index", "id", "finish_reason", "usage", "prompt_tokens", "prompt_tokens_details", "cached_tokens",
     "logprobs", "token", "logprob", "bytes", "top_logprobs", "error", "message", "code", "param", "model"]
)  # fmt: skip
SAID = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ENGINE_KEYS, inner, max_size=5), max_leaves=20
)


@given(st.dictionaries(NAMES, JSON, max_size=6))
def test_any_request(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    try:
        asked = read(body)
    except TranslationError as error:
        assert error.message
        return
    history = History([], [item for item in asked.items if item.type != "item_reference"])
    made = ResponsesTranslation(asked, history, ID, lambda: NOW)
    assert json.loads(made.body)["messages"] is not None
    json.loads(msgspec.json.encode(made.whole({})))
    msgspec.json.encode([shown(item) for item in named(history.items, ID[5:], 0)])


@given(st.binary(max_size=30))
def test_any_bytes(body: bytes) -> None:
    with suppress(TranslationError):
        read(body)


@given(st.lists(SAID, max_size=5))
def test_any_events(said: list[Any]) -> None:
    streamed = translation(stream=True, include=["message.output_text.logprobs"])
    stream = b"".join([streamed.events(data(one)) for one in said]) + streamed.events(DONE) + streamed.end()
    events = events_of(stream)
    assert [one["sequence_number"] for one in events] == list(range(len(events)))
    assert events[-1]["type"] in ("response.completed", "response.incomplete", "response.failed")


@given(st.dictionaries(ENGINE_KEYS, SAID, max_size=5))
def test_any_answer(said: dict[str, Any]) -> None:
    found = json.loads(msgspec.json.encode(translation(include=["message.output_text.logprobs"]).whole(said)))
    assert found["output"] and found["status"] in ("completed", "incomplete")


@given(st.binary(max_size=20), st.binary(max_size=20), st.binary(max_size=20))
def test_any_damage_of_a_kept_response(response: bytes, input: bytes, before: bytes) -> None:
    class Damaged:
        """Keeps one response, for every id."""

        def get(self, id: str) -> Any:
            return Record(id=id, tenant="one", response=Raw(response), input=Raw(input), before=Raw(before))

        before = get

    with pytest.raises(TranslationError, match="not found"):
        History.read(Damaged(), Asked(previous_response_id="resp_1", items=[Item(type="item_reference", id="x_")]))
