"""Read the body of a request to an aiohttp server, decompressed, up to a bound.

The server must not decompress by itself.
"""

from collections.abc import Callable

from aiohttp import web

from .compression import BodyError, decompressed, encoding_named


def _take_any(count: int) -> None:
    """Ignore the count."""


async def read_body(request: web.BaseRequest, most_bytes: int, take: Callable[[int], None] = _take_any) -> bytes:
    """The whole body, at most `most_bytes` after decompression. Raises BodyError.

    `take` is told of every piece how many bytes it has, as received and as decompressed; what it raises passes.
    """
    encoding = encoding_named(request.headers.get("Content-Encoding", ""))
    declared = request.content_length
    if declared is not None and declared > most_bytes:
        raise BodyError(413, f"the body has {declared} bytes: expected at most {most_bytes}")
    return await decompressed(await _read(request, most_bytes, take), encoding, most_bytes, take)


async def _read(request: web.BaseRequest, most_bytes: int, take: Callable[[int], None]) -> bytes:
    body = bytearray()
    try:
        while chunk := await request.content.readany():
            take(len(chunk))
            body += chunk
            if len(body) > most_bytes:
                raise BodyError(413, f"the body is too large: expected at most {most_bytes} bytes")
    except web.RequestPayloadError as error:
        raise BodyError(400, f"the body cannot be read: {str(error)[:200]}") from error
    return bytes(body)
