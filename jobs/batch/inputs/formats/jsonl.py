"""Batch inputs in JSON Lines: one JSON object a line."""

from collections.abc import Callable
from typing import Any

from .....core.jsonl import BadLineError, decode_line
from ..plan import InputFile
from .lines import LineSource, scan_lines
from .source import Index, Source


def scan(file: InputFile, on_bytes: Callable[[int], None]) -> Index:
    """Count lines, blank ones too."""
    return scan_lines(file, on_bytes)


def open_source(file: InputFile, columns: tuple[str, ...] | None) -> Source:
    """Open a file; whole lines are parsed whatever the columns."""
    return LineSource(file, _decode)


def _decode(line: bytes | None) -> dict[str, Any] | None:
    if line is not None and not (line := line.strip(b" \t\r\n")):
        return None
    value = decode_line(line)
    if not isinstance(value, dict):
        raise BadLineError(f'expected a JSON object, such as {{"prompt": "..."}}, not {_KINDS[type(value)]}')
    return value


_KINDS = {
    list: "an array", str: "a string", int: "a number", float: "a number", bool: "true or false", type(None): "null",
}  # fmt: skip
