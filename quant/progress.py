"""How long work on models reports itself."""

from typing import Protocol


class Progress(Protocol):
    """Called as work goes on, from the calling thread; must return quickly."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`stage` is a short text such as "download"; `done` and `total` are bytes or layers, total 0 if not known."""


def silent(stage: str, done: int, total: int) -> None:
    """Reports nothing."""
