"""How a driver ends before its batch is done: told by the scheduler, or by a user."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from types import FrameType
from typing import Any

from ....core.slurm_env import WALLTIME_SIGNAL
from ....nodes.agent.signals import Signals

_TERMINATED = 128 + signal.SIGTERM
_ENDING = (signal.SIGTERM, signal.SIGINT, WALLTIME_SIGNAL)


class DriverEnding:
    """Signals end the driver by an exception, so that its results are on the disk and its claims given back.

    Args:
        is_taken_away: whether the scheduler ends this job at its limit, or for another one. Asked once, after a signal.
        is_requeued: whether it was sent back to the queue by somebody. Asked likewise.
    """

    def __init__(self, is_taken_away: Callable[[], bool], is_requeued: Callable[[], bool]) -> None:
        self._signals = Signals()
        self._ask_taken_away, self._ask_requeued = is_taken_away, is_requeued
        self._has_left = False

    @property
    def is_told(self) -> bool:
        """Whether a signal has asked the driver to end."""
        return bool(self._signals.reason)

    @cached_property
    def returns(self) -> bool:
        """Whether the job comes back: after the walltime signal, or where the scheduler itself ends it for now."""
        return not self._signals.terminated or self._is_taken_away or self._ask_requeued()

    @cached_property
    def _is_taken_away(self) -> bool:
        return self._ask_taken_away()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Leave the block by SystemExit at the first signal; at the end, send the job back to the queue if it returns.

        For the main thread. A signal that comes while the block is being left changes nothing.
        """
        self._signals.listen()
        self._passed_on: dict[int, Any] = {int(number): signal.signal(number, self._leave) for number in _ENDING}
        try:
            yield
        except SystemExit:
            if not self.is_told:
                raise
        finally:
            self._signals.restore()
        if self.is_told:
            self._signals.hand_back(None, lambda: self._is_taken_away)
            raise SystemExit(0 if self.returns else _TERMINATED)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        self._passed_on[number](number, frame)
        if not self._has_left:
            self._has_left = True
            raise SystemExit(_TERMINATED)


@contextmanager
def terminated_as_exit() -> Iterator[None]:
    """SIGTERM, as scancel and preemption send it, ends the batch in order: results are flushed, jobs are stopped."""

    def leave(number: int, frame: FrameType | None) -> None:
        """End the process by an exception, so that every `finally` runs."""
        raise SystemExit(_TERMINATED)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
