"""Server-sent events as bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.router.relay.stream.envelope import CHAT, MESSAGES, RESPONSES
from slurminfer.router.relay.stream.events import (
    EventGate,
    is_end,
    payloads,
    split_error,
    stream_error,
    usage_of,
    usages_together,
    without_token_ids,
    without_usage,
)

STREAM = b': ping\n\ndata: {"a": "\\n\\n"}\n\nevent: x\r\ndata: 1\r\n\r\ndata: 2\n\ndata: [DONE]\n\n'
ENDS = [len(STREAM[:end]) for end in range(len(STREAM) + 1) if STREAM[:end].endswith((b"\n\n", b"\r\n\r\n"))]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_gate_lets_whole_events_through(cuts: list[int]) -> None:
    gate, out, fed = EventGate(), b"", 0
    for cut in [*sorted(cuts), len(STREAM)]:
        out += gate.feed(STREAM[fed:cut])
        fed = cut
        assert out == STREAM[: max((end for end in ENDS if end <= fed), default=0)]
        assert out + gate.rest() == STREAM[:fed]
    assert out == STREAM


def test_payloads() -> None:
    assert list(payloads(STREAM)) == [b'{"a": "\\n\\n"}', b"1", b"2", b"[DONE]"]
    assert list(payloads(b"data: a\ndata:b\n\n")) == [b"a\nb"]


def test_what_the_client_has_not_asked_for_is_taken_out() -> None:
    says = json.dumps({"text": ',"token_ids":[1,2],"choices":[]'}).encode()
    event = b'data: {"choices":[{"t":' + says + b',"token_ids":[1,23]},{"i":1,"token_ids":[]}]}\n\n'
    assert without_token_ids(event) == b'data: {"choices":[{"t":' + says + b'},{"i":1}]}\n\n'
    usage = b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":3}}\n\n'
    assert without_usage(event + usage + b"data: [DONE]\n\n") == event + b"data: [DONE]\n\n"
    assert without_usage(event) == event


def test_usage() -> None:
    assert usage_of(b'data: {"usage":null,"choices":[1]}\n\n') is None
    assert usage_of(b'{"usage": {"prompt_tokens": 3, "d": {"c": 1}}, "x": 1}') == {"prompt_tokens": 3, "d": {"c": 1}}
    assert usage_of(b'data: {"usage":{"a":1}}\n\ndata: {"usage":{"a":2}}\n\ndata: [DONE]\n\n') == {"a": 2}
    assert usage_of(b'{"usage":{"a"') is None


def test_usages_that_are_told_bit_by_bit() -> None:
    start = b'data: {"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":1}}}\n\n'
    end = b'data: {"type":"message_delta", "usage": {"output_tokens":6,"input_tokens":0,"tier":"x"}}\n\n'
    said = b'data: {"delta":{"text":"\\"usage\\":{\\"input_tokens\\":900}"}}\n\n'
    begun = usages_together(start)
    assert begun == {"input_tokens": 7, "output_tokens": 1}
    assert usages_together(said, begun) == begun and usages_together(said) is None
    assert usages_together(end, begun) == usages_together(start + said + end) == {"input_tokens": 7, "output_tokens": 6}
    assert usages_together(b'data: {"usage":{"input\n\n', begun) == begun


def test_ends() -> None:
    assert is_end(CHAT, b"data: [DONE]\n\n") and is_end(CHAT, b"data: 1\n\ndata:[DONE]\n\n")
    assert not is_end(CHAT, b'data: {"content":"data: [DONE]"}\n\n')
    assert is_end(MESSAGES, b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert is_end(RESPONSES, b"event: response.completed\ndata: {}\n\n")
    assert not is_end(RESPONSES, b"event: response.created\ndata: {}\n\n")


def test_error_of_a_worker() -> None:
    error = b'data: {"error":{"message":"ends","code":"engine_failed"}}\n\n'
    assert split_error(b"data: 1\n\n" + error) == (b"data: 1\n\n", json.loads(error[6:]))
    assert split_error(b'data: {"text":"data: {\\"error\\""}\n\n') is None


@pytest.mark.parametrize("kind", [CHAT, MESSAGES, RESPONSES])
def test_error_events(kind: str) -> None:
    event = stream_error(kind, "it is gone")
    assert event.endswith(b"\n\n") and event.startswith(b"event: error\n") == (kind != CHAT)
    assert "it is gone" in json.dumps(json.loads(next(payloads(event))))
