"""What a reader of energy looks like."""

from typing import Protocol


class Counter(Protocol):
    """Adds up energy from when it was made."""

    def joules(self) -> float | None:
        """Joules so far; None where they cannot be read."""
