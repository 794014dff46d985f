"""What is read of a request's body, and what the prompt's text is made of."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.router.relay.stream import prompt as prompt_module
from slurminfer.router.relay.stream.envelope import (
    Envelope,
    EnvelopeError,
    read_envelope,
    with_fields,
    with_usage,
)
from slurminfer.router.relay.stream.prompt import prompt_text

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Grüße"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "1", "content": "42"},
]


def read(body: Any, path: str = CHAT, **options: Any) -> Envelope:
    return read_envelope(path, "application/json", json.dumps(body, **options).encode())


def text(body: Any, path: str = CHAT, **options: Any) -> bytes:
    return prompt_text(read(body, path, **options))


def test_fields() -> None:
    envelope = read({"model": "m", "stream": True, "n": 2.0, "max_tokens": 5, "stop": "x", "logprobs": 0, "kind": 3})
    assert (envelope.kind, envelope.model, envelope.streams, envelope.choices) == ("chat", "m", True, 2)
    assert (envelope.limit, envelope.stops, envelope.wants_logprobs) == (5, ["x"], True)
    assert read({"max_tokens": 5, "max_completion_tokens": 7}).limit == 7
    assert read({"max_tokens": "many", "n": None, "stop": {"a": 1}}).limit is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty: expected a JSON object"),
        (b"[]", "expected a JSON object"),
        (b'{"model": 1}', "model: expected"),
        (b'{"a": ' + b"[" * 100_000, "nested too deep"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": 1}}', "not valid JSON"),
        (b'{"n": [1]}', "n: expected"),
    ],
)
def test_what_cannot_be_read(body: bytes, said: str) -> None:
    with pytest.raises(EnvelopeError, match=said):
        read_envelope(CHAT, "application/json", body)


def test_multipart_is_not_read() -> None:
    assert not read_envelope("/v1/audio/transcriptions", "multipart/form-data; boundary=x", b"--x").is_read


def test_of_a_key_that_is_there_twice_the_last_counts() -> None:
    assert read_envelope(CHAT, "", b'{"model": "a", "model": "b"}').model == "b"


def test_text_is_the_same_however_the_json_is_written() -> None:
    body = {"messages": TALK, "tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}
    padded = [{**{"refusal": None, "tool_calls": [], "audio": None}, **dict(reversed(m.items()))} for m in TALK]
    tools = [{"function": {"strict": True, "name": "f"}, "type": "function"}]
    other = {"request_id": "7", "temperature": 1, "tools": tools, "messages": padded}
    assert text(body) == text(other, indent=3, ensure_ascii=False)
    parts = [{"role": "user", "content": [{"type": "text", "text": "Gr"}, {"text": "üße", "type": "text"}]}]
    assert text({"messages": parts}) == text({"messages": [{"role": "user", "content": "Grüße"}]})


def test_text_of_a_conversation_begins_with_what_it_was_before() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    texts = [text({"messages": TALK[:count], "tools": tools}) for count in range(1, len(TALK) + 1)]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert len(set(texts)) == len(texts)
    assert text({"messages": TALK}) != text({"messages": TALK, "tools": tools})


def test_text_of_completions() -> None:
    assert text({"prompt": "ab"}, COMPLETIONS) == b"ab"
    assert text({"prompt": [1, 2]}, COMPLETIONS) == b"\1\0\0\0\2\0\0\0"
    assert text({"prompt": ["a", "b"]}, COMPLETIONS) == b"a\0b\0"
    assert text({}, COMPLETIONS) == b""


def test_text_of_other_apis() -> None:
    anthropic = {"system": [{"type": "text", "text": "S"}], "messages": [{"role": "user", "content": "hi"}]}
    assert b"S" in text(anthropic, "/v1/messages")
    responses = {"instructions": "I", "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]}
    assert text(responses, "/v1/responses") == text({**responses, "store": False}, "/v1/responses", indent=1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["messages", "prompt", "input", "tools", "system", "stop", "tool_choice", "stream_options"]),
    json_values,
)
def test_any_value_has_a_text(name: str, value: Any) -> None:
    for path in (CHAT, COMPLETIONS, "/v1/messages", "/v1/responses"):
        envelope = read({name: value}, path)
        assert isinstance(prompt_text(envelope), bytes)
        assert envelope.stops is not None and envelope.choices == 1
        asked = json.loads(with_usage(json.dumps({name: value}).encode(), envelope))["stream_options"]
        assert asked["include_usage"] if isinstance(asked, dict) else asked == value


@pytest.mark.parametrize("body", [b"{}", b' { "a":1}', b'{"stream_options":null,"a":1.50}'])
def test_usage_is_asked_for(body: bytes) -> None:
    asked = json.loads(with_usage(body, read_envelope(CHAT, "", body)))
    assert asked == {**json.loads(body), "stream_options": {"include_usage": True}}


def test_usage_keeps_other_options_and_bytes() -> None:
    body = b'{"x": 1.500, "stream_options": {"continuous_usage_stats": true}}'
    asked = with_usage(body, read_envelope(CHAT, "", body))
    assert b"1.500" in asked
    assert json.loads(asked)["stream_options"] == {"continuous_usage_stats": True, "include_usage": True}
    assert with_usage(asked, read_envelope(CHAT, "", asked)) is asked


def test_fields_are_set_and_all_others_stay() -> None:
    body = b'{"big": 123456789012345678901234567890.0, "a": 1}'
    assert with_fields(body, {"a": [2]}) == b'{"big":123456789012345678901234567890.0,"a":[2]}'


def test_what_is_nested_deeper_than_a_list_of_prompts_is_taken_as_json() -> None:
    """To go down into it would take a time that grows with the square of its depth."""
    assert text({"prompt": ["a", ["b", ["c"]], [1, 2], [[3]], 4]}, COMPLETIONS) == (
        b'a\0["b",["c"]]\0' + b"\1\0\0\0\2\0\0\0\0" + b"[[3]]\0" + b"4\0"
    )


@pytest.mark.parametrize("name", ["messages", "prompt", "system"])
def test_of_very_many_values_none_is_looked_at_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two million of them would take a second, in which all others wait."""
    monkeypatch.setattr(prompt_module, "_loose_message", None)  # which would fail
    many: list[Any] = ["a", *range(50_000)]
    written = json.dumps(many, separators=(",", ":")).encode()
    assert text({name: many}, COMPLETIONS).startswith((written, b"\0system\0" + written))


def test_big_values_are_taken_as_they_are_written() -> None:
    """Decoded, empty objects take many times the bytes of their text."""
    body = b'{"messages": [' + b"{}," * 60_000 + b"{}]}"
    assert prompt_text(read_envelope(CHAT, "", body)).startswith(b"[{},{}")
    words = b'{"prompt": [' + b'"a",' * 200_000 + b'"a"]}'
    assert prompt_text(read_envelope(COMPLETIONS, "", words)).startswith(b'["a","a"')
    code = json.dumps({"prompt": 'x = "a", "b"\n' * 100_000}).encode()
    assert prompt_text(read_envelope(COMPLETIONS, "", code)).startswith(b'x = "a", "b"\nx')
    ids = json.dumps({"prompt": [1000] * 1_000_000}).encode()
    assert prompt_text(read_envelope(COMPLETIONS, "", ids)).startswith(b"[1000,")


@pytest.mark.parametrize("name", ["prompt", "messages", "tools", "system", "stream_options", "input", "stop"])
@pytest.mark.parametrize("before", ['["a",', "[", '{"a":', '[{"role":"user","content":'])
def test_what_can_just_be_decoded_is_no_defect_when_it_is_written_again(name: str, before: str) -> None:
    """Of some depth that a decoder takes, no more is left for what comes then."""
    after = {"[": "]", "{": "}"}
    close = "".join(after[letter] for letter in reversed(before) if letter in after)
    for depth in range(300, 1010):
        body = ('{"stream":true,"' + name + '":' + before * depth + "1" + close * depth + "}").encode()
        try:
            envelope = read_envelope(CHAT, "", body)
            prompt_text(envelope)
            with_usage(body, envelope)
        except EnvelopeError as error:
            assert str(error) == "the body is nested too deep"


@pytest.mark.parametrize("space", [b"", b" ", b"\n"])
def test_too_many_keys(space: bytes) -> None:
    body = b'{"stream_options": {}, ' + b",".join(b'"%d"%b:1' % (key, space) for key in range(500_001)) + b"}"
    with pytest.raises(EnvelopeError, match="too many keys"):
        read_envelope(CHAT, "", body)
