"""JSON Lines, one JSON value a line: the reader of all such files.

A byte order mark, CRLF, blank lines and a last line without an end are taken as they are meant; only LF ends a line, so
a string may hold U+2028. Memory is bounded: of a line longer than LONGEST_LINE only the number is known.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

LONGEST_LINE = 64 * 1024 * 1024  # bytes, as many as the router takes in one body
BOM = b"\xef\xbb\xbf"
_SPACED_KEY = re.compile(rb'"[ \t\r\n]+:')


class BadLineError(ValueError):
    """A line has no usable JSON value. The message says why."""


def read_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Numbers from 1 and contents of the lines that are not blank, without what ends them; None for one too long.

    Raises OSError.
    """
    with path.open("rb") as file:
        for number, line in enumerate(_split(file), start=1):
            if line is None or (line := line.strip(b" \t\r\n")):
                yield number, line


def read_line(file: BinaryIO) -> tuple[bytes | None, int]:
    """The next line with its end, None for one too long, and its bytes; 0 bytes at the end of the file.

    Raises OSError.
    """
    line = file.readline(LONGEST_LINE + 1)
    if len(line) <= LONGEST_LINE or line.endswith(b"\n"):
        return line, len(line)
    size = len(line)
    while line and not line.endswith(b"\n"):
        line = file.readline(LONGEST_LINE)
        size += len(line)
    return None, size


def decode_line(line: bytes | None) -> Any:
    """The JSON value of a line of `read_lines`. Raises BadLineError.

    Stricter than Python's json: no NaN, no half of a surrogate pair, and no key twice in one object.
    """
    if line is None:
        raise too_long()
    try:
        value = msgspec.json.decode(line)
        if _may_repeat_keys(line, value):
            json.loads(line, object_pairs_hook=_refuse_repeated)  # msgspec keeps the last of several
    except RecursionError as error:
        raise BadLineError("nested too deeply") from error
    except UnicodeDecodeError as error:
        raise BadLineError(f"not JSON: not UTF-8: {error.reason}") from error
    except BadLineError:
        raise
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadLineError(f"not JSON: {error}") from error
    return value


def too_long() -> BadLineError:
    """For a line of which only the number is known."""
    return BadLineError(f"longer than {LONGEST_LINE // 1024**2} MiB")


def _split(file: BinaryIO) -> Iterator[bytes | None]:
    line, size = read_line(file)
    line = line.removeprefix(BOM) if line is not None else None
    while size:
        yield line
        line, size = read_line(file)


def _may_repeat_keys(line: bytes, value: Any) -> bool:
    """Whether the line has more keys than the value; sometimes also for colons within strings.

    Each key ends with a quote and a colon, with nothing or white space between. Quotes that follow one backslash alone
    are within a string.
    """
    most = line.count(b'":')
    if b"\\" in line:
        most -= line.count(b'\\":') - line.count(b'\\\\":')
    if b" :" in line or b"\t:" in line or b"\r:" in line or b"\n:" in line:
        most += len(_SPACED_KEY.findall(line))
    if isinstance(value, dict) and most == len(value):
        return False
    return most != _count_keys(value)


def _count_keys(value: Any) -> int:
    count, left = 0, [value]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            count += len(each)
            left.extend(each.values())
        elif isinstance(each, list):
            left.extend(each)
    return count


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise BadLineError(f"key {key!r} occurs twice in one object")
        seen.add(key)
