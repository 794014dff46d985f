"""Asking Slurm now and then for what changes seldom. What it said last counts until it says something else."""

import logging
from collections.abc import Callable

from ...core.errors import SlurmError

_log = logging.getLogger(__name__)


class Seldom:
    """Asks once in a period; an answer that fails to come is a warning, and is asked for a period later.

    Args:
        ask: asks, and keeps the answer. Raises SlurmError.
        every_s: seconds between two questions.
        what: is asked for, as a plural for the warning.
    """

    def __init__(self, ask: Callable[[], None], every_s: float, what: str) -> None:
        self._ask, self._every_s, self._what = ask, every_s, what
        self._asked_at: float | None = None

    def refresh(self, now: float) -> None:
        """Ask if it is time. `now`: seconds on one clock."""
        if self._asked_at is not None and now - self._asked_at < self._every_s:
            return
        self._asked_at = now
        try:
            self._ask()
        except SlurmError as error:
            _log.warning("%s stay as they were said last: %s", self._what, error)
