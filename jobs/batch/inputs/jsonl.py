"""Batch inputs in JSON Lines: one JSON object a line. Blank lines are passed over."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from ....core.errors import BatchError
from .request import BadLine, BatchRequest, parse_request


class JsonlReader:
    """Reads JSON Lines, never more than one line in memory."""

    def count(self, path: Path) -> int:
        """The number of lines that are not blank. Raises BatchError."""
        return sum(1 for _ in _lines(path))

    def read(self, path: Path) -> Iterator[BatchRequest | BadLine]:
        """What every line that is not blank asks for; lines are counted from 1. Raises BatchError."""
        return (_parse(number, line) for number, line in _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line := line.strip():
                    yield number, line
    except OSError as error:
        raise BatchError(f"cannot read {path}: {error.strerror}") from error


def _parse(number: int, line: bytes) -> BatchRequest | BadLine:
    try:
        return parse_request(number, msgspec.json.decode(line))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return BadLine(number, None, f"not JSON: {error}")
    except RecursionError:
        return BadLine(number, None, "nested too deeply")
