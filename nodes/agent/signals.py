"""The signals by which a scheduler ends a job, as something that a loop can look at."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from ...core.slurm_env import WALLTIME_SIGNAL

_CLOCK_S = 2.0  # by which the clocks of two nodes may differ


class Signals:
    """What the scheduler has told the agent.

    `reason` is empty until a signal asks the agent to end, and then says which; or until `retire`. `terminated` is set
    by SIGTERM and SIGINT, after which the job ends; after the walltime signal alone the job goes back to the queue.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.is_retired = False
        self._terminated_at: float | None = None  # Unix time
        self._walltime_call: tuple[int, FrameType | None] | None = None
        self._previous: dict[int, Any] = {}
        # A pipe, not a threading.Event: its lock may be held by the very code that a handler interrupts.
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def listen(self) -> None:
        """Install the handlers. For the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT, WALLTIME_SIGNAL):
            self._previous[number] = signal.signal(number, self._receive)
        self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self._wake)

    def retire(self, reason: str) -> None:
        """End for good, as the controller says: the job does not go back to the queue."""
        self.is_retired, self.reason = True, self.reason or reason

    def restore(self) -> None:
        """Put back the handlers that were there before `listen`."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def terminated(self) -> bool:
        """Whether SIGTERM or SIGINT has come."""
        return self._terminated_at is not None

    def hand_back(self, ends_at: float | None, is_taken_away: Callable[[], bool]) -> None:
        """Let submitit's handler have the walltime signal: it requeues the job.

        If SIGTERM came before the walltime limit, only where the scheduler takes the job away: one that was cancelled
        would come back. To be called last, when the engine has ended and after `restore`.

        Args:
            ends_at: the walltime limit when the job was started, Unix time.
            is_taken_away: whether the scheduler says that it ends the job at its limit, or for a more urgent one.
        """
        handler = self._previous.get(WALLTIME_SIGNAL)
        if self.is_retired or not callable(handler):
            return
        was_warned = self._walltime_call is not None
        if is_taken_away() if self._is_terminated_early(ends_at) else was_warned:
            handler(*(self._walltime_call or (WALLTIME_SIGNAL, None)))

    def _is_terminated_early(self, ends_at: float | None) -> bool:
        at = self._terminated_at
        return at is not None and (ends_at is None or at < ends_at - _CLOCK_S)

    def wait(self, seconds: float) -> None:
        """Sleep, but wake for a signal, and for the end of a child process."""
        if select.select([self._woken], [], [], seconds)[0]:
            os.read(self._woken, 4096)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == WALLTIME_SIGNAL:
            self._walltime_call = (number, frame)
            self.reason = self.reason or "walltime or preemption: the job goes back to the queue"
        else:
            self._terminated_at = self._terminated_at or time.time()
            self.reason = f"ended by {signal.Signals(number).name}"
        self._wake(number, frame)

    def _wake(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):  # so full that it wakes anyway
            os.write(self._waker, b"\0")
