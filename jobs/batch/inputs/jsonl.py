"""Batch inputs in JSON Lines: one JSON object a line. Blank lines are passed over."""

from collections.abc import Iterator
from pathlib import Path

from ....core.errors import BatchError
from ....core.jsonl import BadLineError, decode_line, read_lines
from .request import BadLine, BatchRequest, parse_request


class JsonlReader:
    """Reads JSON Lines, never more than one line in memory."""

    def count(self, path: Path) -> int:
        """The number of lines that are not blank. Raises BatchError."""
        return sum(1 for _ in _lines(path))

    def read(self, path: Path) -> Iterator[BatchRequest | BadLine]:
        """What every line that is not blank asks for; lines are counted from 1. Raises BatchError."""
        return (_parse(number, line) for number, line in _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    try:
        yield from read_lines(path)
    except OSError as error:
        raise BatchError(f"cannot read {path}: {error.strerror}") from error


def _parse(number: int, line: bytes | None) -> BatchRequest | BadLine:
    try:
        return parse_request(number, decode_line(line))
    except BadLineError as error:
        return BadLine(number, None, str(error))
