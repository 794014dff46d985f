"""Answers that are errors."""

from typing import Any

import msgspec

_SHOWN_CHARACTERS = 80


class ApiError(Exception):
    """An answer with an HTTP status other than 200."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        self.status, self.message, self.param, self.code = status, message, param, code
        super().__init__(message)


def short(value: Any) -> str:
    """The JSON of `value`, cut where it is long: what an error shows of a request."""
    if isinstance(value, str | list):
        value = value[:_SHOWN_CHARACTERS]  # writing all of 16 MB out would take a while
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
