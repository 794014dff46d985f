"""What `multipleOf` costs: the library makes a state of each remainder when it compiles a schema.

1,000,003 takes 20 s and 270 MB, and so do two factors of it that one value must be a multiple of. Zeros cost nothing.
"""

import re
from decimal import Decimal
from math import lcm

from .errors import ConstraintError

_MOST = 100_000  # remainders, of all numbers of a constraint: two seconds, 50 MB
_MULTIPLE = re.compile(r'"multipleOf"\s*:\s*(-?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,3})?)')


class Multiples:
    """Counts the remainders of all `multipleOf` in the texts of a constraint."""

    def __init__(self) -> None:
        self._sum, self._common = 0, 1

    def add(self, text: str) -> None:
        """Count those in the JSON of a schema, or in a grammar that has one. Raises ConstraintError."""
        for written in _MULTIPLE.findall(text):
            digits = int("".join(map(str, Decimal(written).normalize().as_tuple().digits)))
            self._sum += digits
            self._common = lcm(self._common, max(digits, 1))
            if max(self._sum, self._common) > _MOST:
                raise ConstraintError(
                    f"multipleOf {written[:60]} takes too long: expected numbers whose sum and whose least common "
                    f"multiple, without decimal point and zeros at the end, are at most {_MOST}"
                )
