"""What the benchmark of real engines' streams counts as equal."""

import json
from typing import Any

import pytest

from benchmarks.failover.questions import not_continuable, places, questions, with_stop
from benchmarks.failover.streams import Told, differences


def stream(*texts: str, finish: str = "stop", ids: str = "a", end: bytes = b"data: [DONE]\n\n") -> bytes:
    chunks: list[dict[str, Any]] = [{"id": ids, "choices": [{"text": text, "finish_reason": None}]} for text in texts]
    chunks.append({"id": "a", "choices": [{"text": "", "finish_reason": finish}]})
    chunks.append({"id": "a", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(texts)}})
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + end


EXPECTED = Told.of(stream("one", " two"))


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (stream("one", " two"), []),
        (stream("one", " tow"), ["text"]),
        (stream("one", " two", finish="length"), ["finish"]),
        (stream("one", " ", "two"), ["usage"]),
        (stream("one", " two", ids="b"), ["ids"]),
        (stream("one", " two", end=b""), ["end"]),
    ],
)
def test_differences(data: bytes, wrong: list[str]) -> None:
    assert differences(Told.of(data), EXPECTED) == wrong


def test_questions_are_of_all_kinds() -> None:
    asked = questions(24, 96)
    assert {question.name for question in asked} == {"chat", "completion"}
    assert any(question.stops_at for question in asked)
    assert any("stream_options" not in question.fields for question in asked)
    stopped = next(question for question in asked if question.stops_at)
    assert with_stop(stopped, "0123456789" * 5)["stop"][0] in "0123456789" * 5
    assert len(not_continuable()) == 3


def test_cuts_are_within_the_stream() -> None:
    for events in (2, 5, 80):
        assert all(1 <= place < max(2, events) for place in places(events, 5, seed=1))
