"""What becomes of the signals by which Slurm ends a worker's job."""

import os
import signal
import time

import pytest

from slurminfer.core.slurm_env import WALLTIME_SIGNAL
from slurminfer.nodes.agent.signals import Signals

SOON, LATER = 0.0, 600.0  # seconds until the walltime limit


@pytest.mark.parametrize(
    ("numbers", "left_s", "is_taken_away", "is_requeued"),
    [
        ([WALLTIME_SIGNAL], LATER, False, True),
        ([signal.SIGTERM], SOON, False, False),
        ([WALLTIME_SIGNAL, signal.SIGTERM], SOON, False, True),  # the limit was reached before all was drained
        ([WALLTIME_SIGNAL, signal.SIGTERM], LATER, False, False),  # cancelled while it drained
        ([signal.SIGTERM, WALLTIME_SIGNAL], LATER, False, False),
        ([WALLTIME_SIGNAL, signal.SIGTERM], None, False, False),
        ([WALLTIME_SIGNAL, signal.SIGTERM], LATER, True, True),  # its limit was lowered
        ([signal.SIGTERM], LATER, True, True),  # preempted, and Slurm sends no other signal
    ],
)
def test_a_job_that_is_cancelled_is_not_requeued(numbers, left_s, is_taken_away, is_requeued):
    requeued: list[int] = []
    before = signal.signal(WALLTIME_SIGNAL, lambda number, frame: requeued.append(number))
    signals = Signals()
    try:
        signals.listen()
        for number in numbers:
            os.kill(os.getpid(), number)
            signals.wait(10)
        signals.restore()
        signals.hand_back(None if left_s is None else time.time() + left_s, lambda: is_taken_away)
    finally:
        signal.signal(WALLTIME_SIGNAL, before)
    assert signals.reason and bool(requeued) == is_requeued
