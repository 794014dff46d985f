"""JSON Lines, one JSON value a line: the reader of all such files.

A byte order mark, CRLF, blank lines and a last line without an end are taken as they are meant; only LF ends a line, so
a string may hold U+2028. Memory is bounded: of a line longer than LONGEST_LINE only the number is known.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

LONGEST_LINE = 64 * 1024 * 1024  # bytes, as many as the router takes in one body
_BOM = b"\xef\xbb\xbf"


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


def decode_line(line: bytes | None) -> Any:
    """The JSON value of a line of `read_lines`. Raises BadLineError.

    Stricter than Python's json: no NaN, no half of a surrogate pair, and no key twice in one object.
    """
    if line is None:
        raise BadLineError(f"longer than {LONGEST_LINE // 1024**2} MiB")
    try:
        value = msgspec.json.decode(line)
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


def _split(file: BinaryIO) -> Iterator[bytes | None]:
    line = file.readline(LONGEST_LINE + 1).removeprefix(_BOM)
    while line:
        if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE)
            yield None
        else:
            yield line
        line = file.readline(LONGEST_LINE + 1)


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise BadLineError(f"key {key!r} occurs twice in one object")
        seen.add(key)
