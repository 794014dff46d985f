"""Jinja templates of batches: from a row's columns to text."""

from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ....core.errors import UsageError
from .request import BadRowError

LONGEST_TEXT = 64 * 1024 * 1024  # characters
_MOST_DIGITS = 10_000
_FAILURES = (
    jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError,
    TypeError, ValueError,
)  # fmt: skip


class Template:
    """A template of the user's, run in a sandbox with nothing but a row's columns, and `row`, the row itself.

    Loops over `range` have at most 100,000 steps (Jinja's bound), texts at most 64 Mi characters.

    Args:
        name: of the option that gave it, for messages.
        text: of the template.

    Raises UsageError for a text that is no template.
    """

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        try:
            self._template = _environment.from_string(text)
            self._names = meta.find_undeclared_variables(_environment.parse(text)) - set(_environment.globals)
        except jinja2.TemplateSyntaxError as error:
            raise UsageError(f"{name}: line {error.lineno}: {error.message}; expected a Jinja template") from error
        except RecursionError as error:
            raise UsageError(f"{name}: nested too deeply; expected a Jinja template") from error

    @property
    def columns(self) -> set[str] | None:
        """That it may use; None: any."""
        return None if "row" in self._names else self._names

    def render(self, row: Mapping[str, Any], columns: tuple[str, ...]) -> str:
        """The text for a row. `columns`: all that exist, for messages. Raises BadRowError."""
        try:
            return _bounded(self._template.generate({"row": row, **row}))
        except jinja2.UndefinedError as error:
            raise BadRowError(f"{self._name}: {self._missing(row, columns, error)}") from error
        except SecurityError as error:
            raise BadRowError(f"{self._name}: {error}") from error
        except RecursionError as error:
            raise BadRowError(f"{self._name}: nested too deeply") from error
        except _FAILURES as error:
            raise BadRowError(f"{self._name}: {type(error).__name__}: {error}") from error

    def _missing(self, row: Mapping[str, Any], columns: tuple[str, ...], error: Exception) -> str:
        missing = sorted(name for name in self._names - {"row"} if name not in row)
        if not missing or not any(repr(name) in str(error) for name in missing):
            return str(error)
        return no_column(next(name for name in missing if repr(name) in str(error)), columns)


def no_column(name: str, columns: tuple[str, ...]) -> str:
    """What is said of a column that is not there."""
    shown = ", ".join(columns[:40]) or "none"
    return f"no column {name!r}; the row has: {shown}{', ...' if len(columns) > 40 else ''}"


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse what would fill the memory at once."""
        if operator == "*" and any(isinstance(each, (str, bytes, list, tuple)) for each in (left, right)):
            text, times = (left, right) if not isinstance(left, int) else (right, left)
            if isinstance(times, int) and len(text) * times > LONGEST_TEXT:
                raise SecurityError(f"a text is longer than {LONGEST_TEXT} characters")
        if operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * max(1, right) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > 4 * _MOST_DIGITS:
                raise SecurityError(f"a number has more than {_MOST_DIGITS} digits")
        return super().call_binop(context, operator, left, right)


def _make_environment() -> _Environment:
    environment = _Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    environment.globals = {name: environment.globals[name] for name in ("range", "namespace")}
    return environment


_environment = _make_environment()


def _bounded(pieces: Iterator[str]) -> str:
    texts, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > LONGEST_TEXT:
            raise SecurityError(f"the text is longer than {LONGEST_TEXT} characters")
        texts.append(piece)
    return "".join(texts)
