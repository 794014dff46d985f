"""What an answer is: right, wrong, cut off without a word, or lost."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .client import Answer
from .stub.answers import answer_to, prompt_of, tokens_of


class Verdict(StrEnum):
    """What has become of a request, from its client's view."""

    RIGHT = "right"
    WRONG = "wrong"  # complete, but not what a single undisturbed worker would have said
    SILENT_CUT = "silent_cuts"  # ended as if it were complete, without [DONE] or a finish reason, and no error event
    LOST = "lost"  # refused with 408, 429 or 5xx, an error event, a broken connection, or nothing at all
    REFUSED = "refused"  # 4xx, though there is nothing wrong with the request: a worker said so
    RESENT = "resent"  # broken off because the router's process was killed, and asked again


@dataclass(frozen=True, slots=True)
class Expected:
    """The undisturbed answer to a request."""

    text: str
    finish_reason: str
    tokens: int | None  # of the answer, where usage is asked for
    prompt_tokens: int

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "Expected":
        """What a stub worker says to a request with these fields."""
        answer = answer_to(fields)
        counts = not fields.get("stream") or bool(fields.get("stream_options"))
        tokens = len(answer.pieces) if counts else None
        return cls(answer.text, answer.finish_reason, tokens, tokens_of(prompt_of(fields)))


def judge(answer: Answer, expected: Expected, stream: bool) -> tuple[Verdict, str]:
    """The verdict, and why in a few words."""
    if answer.status == 0 or not answer.complete:
        return Verdict.LOST, f"{answer.status}: {answer.error or 'broken off'}"
    if answer.status != 200:
        lost = answer.status >= 500 or answer.status in (408, 429)
        return Verdict.LOST if lost else Verdict.REFUSED, f"{answer.status}: {bytes(answer.body[:200])!r}"
    return _judge_stream(bytes(answer.body), expected) if stream else _judge_whole(bytes(answer.body), expected)


def _judge_whole(body: bytes, expected: Expected) -> tuple[Verdict, str]:
    try:
        said = json.loads(body)
        choice = said["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        return _compare(text, choice["finish_reason"], said["usage"], expected)
    except (ValueError, LookupError, TypeError) as error:
        return Verdict.WRONG, f"no answer: {error!r}: {body[:200]!r}"


def _judge_stream(body: bytes, expected: Expected) -> tuple[Verdict, str]:
    events = [event.removeprefix(b"data:").strip() for event in body.replace(b"\r\n", b"\n").split(b"\n\n")]
    events = [event for event in events if event and not event.startswith(b":")]
    try:
        said = [json.loads(event) for event in events if event != b"[DONE]"]
    except ValueError:
        return Verdict.WRONG, f"not JSON among {events[-3:]!r}"
    if any("error" in event for event in said):
        return Verdict.LOST, f"error event: {next(event for event in said if 'error' in event)}"
    if not events or events[-1] != b"[DONE]":
        return Verdict.SILENT_CUT, f"after {len(events)} events"
    if len({event["id"] for event in said}) > 1 or events.count(b"[DONE]") > 1:
        return Verdict.WRONG, "more than one id or end"
    choices = [event["choices"][0] for event in said if event["choices"]]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    deltas = [choice["delta"] for choice in choices if "delta" in choice]
    if len(reasons) != 1 or sum("role" in delta for delta in deltas) > 1:
        return Verdict.WRONG, f"finish reasons {reasons}, roles {[delta.get('role') for delta in deltas]}"
    text = "".join(delta.get("content") or "" for delta in deltas) or "".join(one.get("text", "") for one in choices)
    usage = next((event["usage"] for event in reversed(said) if event.get("usage")), None)
    return _compare(text, reasons[0], usage, expected)


def _compare(text: str, reason: str, usage: dict[str, Any] | None, expected: Expected) -> tuple[Verdict, str]:
    if text != expected.text:
        same = next((at for at, (a, b) in enumerate(zip(text, expected.text, strict=False)) if a != b), len(text))
        return Verdict.WRONG, f"text: {len(text)} characters for {len(expected.text)}, the first {same} right"
    if reason != expected.finish_reason:
        return Verdict.WRONG, f"finish reason {reason} for {expected.finish_reason}"
    counts = (usage or {}).get("completion_tokens"), (usage or {}).get("prompt_tokens")
    if expected.tokens is not None and counts != (expected.tokens, expected.prompt_tokens):
        return Verdict.WRONG, f"usage {counts} for {(expected.tokens, expected.prompt_tokens)}"
    return Verdict.RIGHT, ""
