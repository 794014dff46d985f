"""The signals by which a scheduler ends a job, as something that a loop can look at."""

import contextlib
import os
import select
import signal
from types import FrameType
from typing import Any

# Slurm sends it `drain_seconds` before the walltime limit: slurm/submit.py asks for it by --signal=USR2@SECONDS. It is
# the one that submitit requeues a job on.
WALLTIME_SIGNAL = signal.SIGUSR2


class Signals:
    """What the scheduler has told the agent.

    `reason` is empty until a signal asks the agent to end, and then says which. `terminated` is set by SIGTERM and
    SIGINT, after which the job ends; after the walltime signal alone the job goes back to the queue.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.terminated = False
        self._walltime_call: tuple[int, FrameType | None] | None = None
        self._previous: dict[int, Any] = {}
        # A pipe, not a threading.Event: its lock may be held by the very code that a handler interrupts.
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def listen(self) -> None:
        """Install the handlers. For the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT, WALLTIME_SIGNAL):
            self._previous[number] = signal.signal(number, self._receive)
        self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self._wake)

    def restore(self) -> None:
        """Put back the handlers that were there before `listen`."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def hand_back(self) -> None:
        """Let submitit's handler have the walltime signal, if there was one: it requeues the job.

        To be called last, when the engine has ended and after `restore`.
        """
        handler = self._previous.get(WALLTIME_SIGNAL)
        if self._walltime_call is not None and callable(handler):
            handler(*self._walltime_call)

    def wait(self, seconds: float) -> None:
        """Sleep, but wake for a signal, and for the end of a child process."""
        if select.select([self._woken], [], [], seconds)[0]:
            os.read(self._woken, 4096)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == WALLTIME_SIGNAL:
            self._walltime_call = (number, frame)
            self.reason = self.reason or "walltime or preemption: the job goes back to the queue"
        else:
            self.terminated = True
            self.reason = f"ended by {signal.Signals(number).name}"
        self._wake(number, frame)

    def _wake(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):  # so full that it wakes anyway
            os.write(self._waker, b"\0")
