"""What an answer says of the tokens that it took."""

from typing import Any

import msgspec


class Tokens(msgspec.Struct, frozen=True):
    """Tokens of one answer, as its engine counts them."""

    prompt: int
    generated: int
    cached: int = 0  # of the prompt


class _Usage(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    input_tokens: Any = None  # as /v1/responses and /v1/messages name them
    output_tokens: Any = None
    cache_read_input_tokens: Any = None
    prompt_tokens_details: Any = None
    input_tokens_details: Any = None


class _Response(msgspec.Struct):
    usage: _Usage | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None
    response: _Response | None = None  # of the event response.completed


_answers = msgspec.json.Decoder(_Answer)


def tokens_in(answer: bytes) -> Tokens | None:
    """The usage of a JSON answer, or of one event's data; None where it has none.

    Raises msgspec.DecodeError, UnicodeDecodeError or RecursionError for what is no JSON object.
    """
    found = _answers.decode(answer)
    usage = found.usage or (found.response.usage if found.response is not None else None)
    if usage is None:
        return None
    details = usage.prompt_tokens_details or usage.input_tokens_details
    cached = details.get("cached_tokens") if isinstance(details, dict) else usage.cache_read_input_tokens
    return Tokens(
        _count(usage.prompt_tokens, usage.input_tokens), _count(usage.completion_tokens, usage.output_tokens),
        _count(cached),
    )  # fmt: skip


def tokens_of_stream(end: bytes) -> Tokens | None:
    """The usage in the last events of a stream; None where they have none."""
    for event in reversed(end.split(b"\n\n")):
        if b'"usage"' not in event:
            continue
        start = event.rfind(b"data:")
        try:
            if start >= 0 and (tokens := tokens_in(event[start + 5 :])):
                return tokens
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return None


def _count(*values: Any) -> int:
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool) and value > 0), 0)
