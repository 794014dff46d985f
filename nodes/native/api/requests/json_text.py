"""JSON that a field has as text, as vLLM and SGLang take schemas and structural tags: bounded like the body itself."""

from typing import Any

import msgspec

from ..errors import ApiError, short
from .body import MAX_DEPTH, is_too_deep

_MAX_TEXT = 1 << 19


def decoded(param: str, text: str, expected: str) -> Any:
    """The value of the JSON in `text`. Raises ApiError, which says what was `expected`."""
    require_short(param, text)
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"{param} = {short(text)}: expected {expected}: {error}", param=param) from error
    if is_too_deep(value):
        raise ApiError(400, f"{param} is nested too deep: expected at most {MAX_DEPTH} levels", param=param)
    return value


def require_short(param: str, text: str) -> None:
    """Raise ApiError for a text that is too long for a constraint."""
    if len(text) > _MAX_TEXT:
        raise ApiError(400, f"{param} has {len(text)} characters: expected at most {_MAX_TEXT}", param=param)
