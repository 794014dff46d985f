"""Answers to requests that go no further, in OpenAI's shape."""

import msgspec

from ...core.openai import error_body
from .messages import Whole

_RETRY_AFTER_S = b"1"


def refusal(status: int, message: str, *, code: str | None = None, close: bool = False) -> Whole:
    """An error answer; one that passes (429, 503) says when to come back."""
    headers = [(b"content-type", b"application/json")]
    if status in (429, 503):
        headers.append((b"retry-after", _RETRY_AFTER_S))
    return Whole(status, msgspec.json.encode(error_body(status, message, code=code)), headers, close=close)
