"""Decompress the bodies of HTTP requests, up to a bound and without holding up the event loop."""

import asyncio
import sys
import zlib
from collections.abc import Callable, Iterator

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_STEP_BYTES = 2**20  # decompressed at once, between which other requests go on
# Of the compressed body at once: what is left of them is copied at each step, and at the end of each part.
_FEED_BYTES = 2**16
_WINDOW = 15  # log2 of zlib's largest window
_ZSTD_WINDOW = 23  # log2 of the largest window of zstd in HTTP (RFC 9659)
# Members of gzip, frames of zstd: each takes a decompressor of its own. bgzip writes one for each 64 KiB.
_MOST_PARTS = 2000
ENCODINGS = ("identity", "gzip", "deflate", "zstd")


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
    text = bytearray()
    try:
        for piece in _unzstd(body) if encoding == "zstd" else _inflate(body, encoding):
            take(len(piece))
            text += piece
            if len(text) > most_bytes:
                expected = f"expected at most {most_bytes} bytes"
                raise BodyError(413, f"the body is too large once decompressed: {expected}")
            await asyncio.sleep(0)
    except (zlib.error, zstd.ZstdError) as error:
        raise BodyError(400, f"the body is not {encoding}, as its Content-Encoding says: {error}") from error
    return bytes(text)


def _inflate(body: bytes, encoding: str) -> Iterator[bytes]:
    """What zlib makes of a body, step by step. Raises BodyError, zlib.error."""
    at = members = 0
    while at < len(body):  # gzip may have several members
        members += 1
        _require_few(members, "gzip members")
        stream = zlib.decompressobj(_window_bits(body[at : at + 1], encoding))
        while not stream.eof:
            part = body[at : at + _FEED_BYTES]
            piece = stream.decompress(part, _STEP_BYTES)
            at += len(part) - len(stream.unconsumed_tail) - len(stream.unused_data)
            yield piece
            if not piece and not part and not stream.eof:
                raise _cut(encoding)
        if at < len(body) and encoding != "gzip":
            raise BodyError(400, f"the body goes on behind its {encoding} data")


def _unzstd(body: bytes) -> Iterator[bytes]:
    """What zstd makes of a body, step by step. Raises BodyError, ZstdError."""
    at = frames = 0
    while at < len(body):
        frames += 1
        _require_few(frames, "zstd frames")
        stream = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW})
        while not stream.eof:
            part = body[at : at + _FEED_BYTES] if stream.needs_input else b""
            if stream.needs_input and not part:
                raise _cut("zstd")
            at += len(part)
            yield stream.decompress(part, _STEP_BYTES)
        at -= len(stream.unused_data)


def _require_few(parts: int, what: str) -> None:
    if parts > _MOST_PARTS:
        raise BodyError(400, f"the body has too many {what}: expected at most {_MOST_PARTS}")


def _cut(encoding: str) -> BodyError:
    return BodyError(400, f"the body ends in the middle of its {encoding} data")


def _window_bits(body: bytes, encoding: str) -> int:
    """Which format zlib is to expect. `deflate` should have zlib's head (RFC 9110), but some clients leave it out."""
    if encoding == "gzip":
        return _WINDOW + 16
    return _WINDOW if body[0] & 0xF == 8 else -_WINDOW
