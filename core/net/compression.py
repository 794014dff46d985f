"""Decompress the bodies of HTTP requests, up to a bound and without holding up the event loop."""

import asyncio
import zlib
from collections.abc import Callable

_STEP_BYTES = 2**20  # decompressed at once, between which other requests go on
_FEED_BYTES = (
    2**16
)  # of the compressed body at once: zlib copies what is left of them at each step, and each member's end
_WINDOW = 15  # log2 of zlib's largest window
ENCODINGS = ("identity", "gzip", "deflate")


class BodyError(Exception):
    """The client's error: what is wrong with the body, and the HTTP status to answer with."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


def encoding_named(header: str) -> str:
    """The one of `ENCODINGS` that a Content-Encoding header names. Raises BodyError."""
    encoding = header.strip().lower() or "identity"
    if encoding == "x-gzip":
        encoding = "gzip"
    if encoding not in ENCODINGS:
        raise BodyError(415, f"Content-Encoding = {encoding[:80]!r}: expected one of {', '.join(ENCODINGS)}")
    return encoding


async def decompressed(body: bytes, encoding: str, most_bytes: int, take: Callable[[int], None]) -> bytes:
    """`body` without its encoding, one of `ENCODINGS`; at most `most_bytes`. Raises BodyError.

    `take` is told of every piece how many bytes it has; what it raises passes.
    """
    if encoding == "identity" or not body:
        return body
    try:
        return await _decompress(body, encoding, most_bytes, take)
    except zlib.error as error:
        raise BodyError(400, f"the body is not {encoding}, as its Content-Encoding says: {error}") from error


async def _decompress(body: bytes, encoding: str, most_bytes: int, take: Callable[[int], None]) -> bytes:
    """Raises BodyError, zlib.error."""
    text, at = bytearray(), 0
    while at < len(body):  # gzip may have several members
        stream = zlib.decompressobj(_window_bits(body[at : at + 1], encoding))
        while not stream.eof:
            part = body[at : at + _FEED_BYTES]
            piece = stream.decompress(part, _STEP_BYTES)
            at += len(part) - len(stream.unconsumed_tail) - len(stream.unused_data)
            take(len(piece))
            text += piece
            if len(text) > most_bytes:
                raise BodyError(413, f"the body is too large once decompressed: expected at most {most_bytes} bytes")
            if not piece and not part and not stream.eof:
                raise BodyError(400, f"the body ends in the middle of its {encoding} data")
            await asyncio.sleep(0)
        if at < len(body) and encoding != "gzip":
            raise BodyError(400, f"the body goes on behind its {encoding} data")
    return bytes(text)


def _window_bits(body: bytes, encoding: str) -> int:
    """Which format zlib is to expect. `deflate` should have zlib's head (RFC 9110), but some clients leave it out."""
    if encoding == "gzip":
        return _WINDOW + 16
    return _WINDOW if body[0] & 0xF == 8 else -_WINDOW
