"""Batch inputs in plain text: every line is a prompt."""

from collections.abc import Callable
from typing import Any

from .....core import jsonl
from ..plan import InputFile
from .lines import LineSource, scan_lines
from .source import Index, Source


def scan(file: InputFile, on_bytes: Callable[[int], None]) -> Index:
    """Count lines, blank ones too."""
    return scan_lines(file, on_bytes)


def open_source(file: InputFile, columns: tuple[str, ...] | None) -> Source:
    """Open a file; it has one column, `prompt`."""
    return LineSource(file, _decode)


def _decode(line: bytes | None) -> dict[str, Any] | None:
    if line is None:
        raise jsonl.too_long()
    if not line.strip(b" \t\r\n"):
        return None
    try:
        return {"prompt": line.removesuffix(b"\n").removesuffix(b"\r").decode()}
    except UnicodeDecodeError as error:
        raise jsonl.BadLineError(f"not UTF-8: {error.reason} at byte {error.start}") from error
