"""The lines of a file, compressed or not, from any place on."""

import io
from array import array
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from .....core.jsonl import BOM, read_line
from ..plan import InputFile, Shard
from ..row import Row
from .source import STEP, Index, ended, unreadable

_CODECS = {"gz": "gzip", "zst": "zstd"}
_BUFFER = 1 << 20
_CHUNK = 1 << 22


class Lines:
    """The plain text of a file by lines. Going back in a compressed file starts at its beginning again."""

    def __init__(self, file: InputFile) -> None:
        self._about = file
        self._open()

    position: int  # of the next line

    def seek(self, offset: int) -> None:
        """Go to a byte of the plain text."""
        try:
            if self._about.compression is None:
                self._file.seek(offset)
                self.position = offset
                return
            if offset < self.position:
                self.close()
                self._open()
            while self.position < offset:
                passed = len(self._file.read(min(_CHUNK, offset - self.position)))
                if not passed:
                    raise ended(self._about)
                self.position += passed
        except (OSError, ValueError) as error:
            raise unreadable(self._about, error) from error

    def next(self) -> bytes | None:
        """The next line with its end, without a byte order mark; None: it is too long. Raises EOFError at the end."""
        try:
            line, size = read_line(self._file)
        except (OSError, ValueError) as error:
            raise unreadable(self._about, error) from error
        if not size:
            raise EOFError
        if self.position == 0 and line is not None:
            line = line.removeprefix(BOM)
        self.position += size
        return line

    def chunks(self) -> Iterator[bytes]:
        """All bytes from here on, some MiB at a time."""
        try:
            while chunk := self._file.read(_CHUNK):
                yield chunk
        except (OSError, ValueError) as error:
            raise unreadable(self._about, error) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> None:
        self.position = 0
        try:
            self._file = _opened(self._about)
        except (OSError, ValueError) as error:
            raise unreadable(self._about, error) from error


class LineSource:
    """An open file whose rows are lines.

    Args:
        decode: the value of a line; None for a blank one. Raises ValueError.
    """

    def __init__(self, file: InputFile, decode: Callable[[bytes | None], dict[str, Any] | None]) -> None:
        self._file, self._decode = file, decode
        self._lines = Lines(file)

    def rows(self, shard: Shard) -> Iterator[Row]:
        """See `Reader.rows`."""
        self._lines.seek(shard.offset)
        read, decode, format, number, first = (
            self._lines.next,
            self._decode,
            self._file.format,
            shard.number,
            shard.first,
        )
        for index in range(shard.rows):
            value, problem = None, None
            try:
                value = decode(read())
            except EOFError as error:
                raise ended(self._file) from error
            except ValueError as error:
                problem = str(error)
            yield Row(number, index, first + index + 1, value, problem, format)

    def table(self, shard: Shard) -> None:
        """Lines have no columns."""

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def scan_lines(file: InputFile, on_bytes: Callable[[int], None]) -> Index:
    """Count lines; the last one needs no end. Reads about a GB/s."""
    import numpy as np

    lines = Lines(file)
    offsets, rows, size, last = array("q", [0]), 0, 0, b"\n"
    try:
        for chunk in lines.chunks():
            ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10)
            # Row r, from 0, begins after the r-th end; those whose number is a multiple of STEP are noted.
            noted = ends[STEP - 1 - rows % STEP :: STEP]
            offsets.frombytes((noted + (size + 1)).astype(np.int64).tobytes())
            rows, size, last = rows + len(ends), size + len(chunk), chunk[-1:]
            on_bytes(len(chunk) if file.compression is None else 0)
    finally:
        lines.close()
    rows += last != b"\n"
    return Index(rows=rows, plain_bytes=size, offsets=offsets[: -(-rows // STEP)])


class _Raw(io.RawIOBase):
    """A stream of pyarrow as Python's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _opened(file: InputFile) -> BinaryIO:
    if file.compression is None:
        return file.path.open("rb", buffering=_BUFFER)
    import pyarrow as pa

    stream = pa.input_stream(str(file.path), compression=_CODECS[file.compression], buffer_size=_BUFFER)
    return cast("BinaryIO", io.BufferedReader(_Raw(stream), _BUFFER))
