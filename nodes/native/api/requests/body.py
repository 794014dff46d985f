"""The JSON of a request, bounded before anything is made of it."""

from typing import Any

import msgspec

from ..errors import ApiError, short

MAX_BYTES = 16 * 2**20
_MAX_CONTAINERS = 200_000  # objects and lists
_MAX_KEYS = 500_000
_MAX_VALUES = 2_000_000
MAX_DEPTH = 64
BIG_BYTES = 1 << 18  # from which on a body is decoded in pieces, and should be so beside the event loop
_CONTAINERS = frozenset((dict, list))  # what the decoder makes of them


def decode(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises ApiError.

    Braces, colons and commas are counted before decoding, those in strings included: millions of empty objects would
    take more memory and time than their text lets one expect.
    """
    for what, most, count in (
        ("objects and lists", _MAX_CONTAINERS, body.count(b"{") + body.count(b"[")),
        ("keys", _MAX_KEYS, body.count(b":")),
        ("values", _MAX_VALUES, body.count(b",")),
    ):
        if count > most:
            raise ApiError(
                400, f"the body has {count} {what} by its braces, colons and commas: expected at most {most}"
            )
    if not body.strip():
        raise ApiError(400, "the body is empty: expected a JSON object")
    try:
        raw = _decode_in_pieces(body) if len(body) > BIG_BYTES else msgspec.json.decode(body)
    except RecursionError as error:
        raise ApiError(400, f"the body is nested too deep: expected at most {MAX_DEPTH} levels") from error
    except ValueError as error:  # DecodeError, UnicodeDecodeError, numbers of thousands of digits
        raise ApiError(400, f"the body is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ApiError(400, f"the body is {short(raw)}: expected a JSON object")
    for name, value in raw.items():
        if is_too_deep(value):
            message = f"{short(name)} is nested too deep: expected at most {MAX_DEPTH} levels"
            raise ApiError(400, message, param=name[:80])
    return raw


def _decode_in_pieces(body: bytes) -> Any:
    """The JSON in `body`; between the lists and objects of a list, other threads go on. Raises ValueError."""
    try:
        raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        return {name: _decode_list(value) for name, value in raw.items()}
    except ValueError:
        return msgspec.json.decode(body)  # which says where it is wrong


def _decode_list(value: msgspec.Raw) -> Any:
    begin = bytes(memoryview(value)[:64]).translate(None, b" \n\r\t")[:2]
    if begin not in (b"[[", b"[{"):
        return msgspec.json.decode(value)
    return [msgspec.json.decode(item) for item in msgspec.json.decode(value, type=list[msgspec.Raw])]


def is_too_deep(value: Any) -> bool:
    """Whether JSON is nested deeper than templates and encoders can be trusted with."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    """The objects and lists in an object or a list."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [member for member in members if type(member) in _CONTAINERS]  # a million of them in a tenth of a second
