"""Access to the keys of a config.json, with errors that name key, value and what is valid."""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ...core.errors import CorruptModelError


class Keys:
    """Typed values of a JSON object. `source` names it in errors. All methods raise CorruptModelError."""

    def __init__(self, raw: Mapping[str, Any], source: str) -> None:
        self.raw, self.source = raw, source

    def positive(self, key: str, default: int | None = None) -> int:
        """A positive integer; `default` where the key is missing or null."""
        value = self.raw.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self.wrong(key, value, "a positive integer")
        return value

    def number(self, key: str, default: float | None = None, *, may_be_zero: bool = False) -> float:
        """A positive number; `default` where the key is missing or null."""
        value = self.raw.get(key)
        value = default if value is None else value
        if isinstance(value, int | float) and not isinstance(value, bool):
            with suppress(OverflowError):
                found = float(value)
                if math.isfinite(found) and (found > 0 or (found == 0 and may_be_zero)):
                    return found
        raise self.wrong(key, value, "a number of at least 0" if may_be_zero else "a positive number")

    def flag(self, key: str, default: bool = False) -> bool:
        """true or false; `default` where the key is missing or null."""
        value = self.raw.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def wrong(self, key: str, value: object, expected: str) -> CorruptModelError:
        """The error for a key with a senseless value."""
        return CorruptModelError(f"{self.source}: {key} = {value!r}: expected {expected}")
