"""multipart/form-data (RFC 7578, RFC 2046), read as it comes: a part may be of any size, and little of it is held."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.message import Message

from aiohttp import content_disposition_filename, parse_content_disposition

_LONGEST_BOUNDARY = 70  # RFC 2046, 5.1.1
_MOST_HEAD, _MOST_PREAMBLE = 8192, 8192  # bytes of a part's headers, and before the first part


class MultipartError(ValueError):
    """The body is no such form."""


@dataclass(frozen=True)
class PartHead:
    """What a part says of itself."""

    name: str
    filename: str | None


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Raises MultipartError."""
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() != "multipart/form-data":
        raise MultipartError(f"Content-Type = {content_type[:100]!r}: expected multipart/form-data")
    boundary = header.get_boundary() or ""
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii() or not boundary.isprintable():
        raise MultipartError(f"boundary: expected 1 to {_LONGEST_BOUNDARY} characters")
    return boundary.encode()


class MultipartReader:
    """Reads one form.

    Args:
        boundary: between its parts.
        read: gives some more of the body; empty at its end.
    """

    def __init__(self, boundary: bytes, read: Callable[[], Awaitable[bytes]]) -> None:
        self._delimiter, self._read = b"\r\n--" + boundary, read
        self._buffer = bytearray(b"\r\n")  # a body may begin with the first delimiter, whose line break it lacks
        self._at_boundary = False  # behind a delimiter

    async def next(self) -> PartHead | None:
        """The next part, when the one before was read to its end; None at the end of the form."""
        if not self._at_boundary:
            await self._skip_preamble()
        self._at_boundary = False
        await self._fill(2)
        if self._buffer.startswith(b"--"):
            return None
        line, head = await self._until(b"\r\n"), b""
        if line.strip(b" \t"):
            raise MultipartError("something stands behind a boundary")
        await self._fill(2)
        if self._buffer.startswith(b"\r\n"):  # no headers
            del self._buffer[:2]
        else:
            head = await self._until(b"\r\n\r\n")
        return _part_head(head)

    async def piece(self) -> bytes:
        """Some more of the part; empty at its end. Raises MultipartError where the body ends before."""
        delimiter = self._delimiter
        while True:
            at = self._buffer.find(delimiter)
            if at == 0:
                del self._buffer[: len(delimiter)]
                self._at_boundary = True
                return b""
            end = at if at > 0 else len(self._buffer) - len(delimiter) + 1  # the rest may be its beginning
            if end > 0:
                data = bytes(self._buffer[:end])
                del self._buffer[:end]
                return data
            await self._more()

    async def _skip_preamble(self) -> None:
        before = 0
        while skipped := await self.piece():
            before += len(skipped)
            if before > _MOST_PREAMBLE:
                raise MultipartError("no part begins")

    async def _until(self, mark: bytes) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > _MOST_HEAD:
                raise MultipartError("the headers of a part are too long")
            await self._more()
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return found

    async def _fill(self, count: int) -> None:
        while len(self._buffer) < count:
            await self._more()

    async def _more(self) -> None:
        data = await self._read()
        if not data:
            raise MultipartError("the body ends in the middle of a part")
        self._buffer += data


def _part_head(head: bytes) -> PartHead:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            kind, parameters = parse_content_disposition(value.strip().decode("utf-8", "replace"))
            if kind == "form-data" and "name" in parameters:
                return PartHead(parameters["name"], content_disposition_filename(parameters))
    raise MultipartError("a part has no Content-Disposition: form-data with a name")
