"""Answers to requests that go no further, in OpenAI's shape."""

import msgspec

from ...core.net.openai import error_body
from .messages import Whole

_RETRY_AFTER_S = b"1"
_USE_HTTPS = b"This port speaks HTTPS, and the request was plain HTTP: use https:// instead of http://\n"
# What plain HTTP gets at a port for TLS, in bytes as they are sent.
TO_PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
    % (len(_USE_HTTPS), _USE_HTTPS)
)


def refusal(status: int, message: str, *, code: str | None = None, close: bool = False) -> Whole:
    """An error answer; one that passes (429, 503) says when to come back."""
    headers = [(b"content-type", b"application/json")]
    if status in (429, 503):
        headers.append((b"retry-after", _RETRY_AFTER_S))
    return Whole(status, msgspec.json.encode(error_body(status, message, code=code)), headers, close=close)
