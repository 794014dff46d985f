"""Jinja templates of batches: from a row's columns to text."""

from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError

from .....core.errors import UsageError
from ..request import BadRowError
from . import sandbox
from .growth import LONGEST_TEXT

_FAILURES = (
    jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, NameError,
    RecursionError, TypeError, ValueError,
)  # fmt: skip


class Template:
    """A template of the user's, run in a sandbox with nothing but a row's columns, and `row`, the row itself.

    A rendering takes at most a million steps, and a text has at most 64 Mi characters: see sandbox.py.

    Args:
        name: of the option that gave it, for messages.
        text: of the template.

    Raises UsageError for a text that is no template.
    """

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        try:
            self._template = sandbox.compile_template(text)
            self._names = sandbox.undeclared(text)
        except jinja2.TemplateSyntaxError as error:
            raise UsageError(f"{name}: line {error.lineno}: {error.message}; expected a Jinja template") from error
        except RecursionError as error:
            raise UsageError(f"{name}: nested too deeply; expected a Jinja template") from error
        except (SyntaxError, ValueError) as error:  # of the Python that Jinja makes of it
            raise UsageError(f"{name}: {getattr(error, 'msg', error)}; expected a Jinja template") from error

    @property
    def columns(self) -> set[str] | None:
        """That it may use; None: any."""
        return None if "row" in self._names else self._names

    def render(self, row: Mapping[str, Any], columns: tuple[str, ...]) -> str:
        """The text for a row. `columns`: all that exist, for messages. Raises BadRowError."""
        try:
            return sandbox.render(self._template, {"row": row, **row}, LONGEST_TEXT)
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
