"""How a driver's job ends: whether it comes back, and who hears of it."""

import os
import signal

import pytest

from slurminfer.core.slurm_env import WALLTIME_SIGNAL
from slurminfer.jobs.batch.submit.ending import DriverEnding


@pytest.fixture
def requeued():
    """The calls of submitit's handler, which sends the job back to the queue."""
    calls = []
    before = {number: signal.getsignal(number) for number in (WALLTIME_SIGNAL, signal.SIGTERM, signal.SIGINT)}
    signal.signal(WALLTIME_SIGNAL, lambda number, frame: calls.append(number))
    yield calls
    for number, handler in before.items():
        signal.signal(number, handler)


def end_by(ending, *numbers):
    """What the driver's block has done, and its exit status; None where it came to its end."""
    done = []
    try:
        with ending.listening():
            try:
                for number in numbers:
                    os.kill(os.getpid(), number)
                done.append("all")
            finally:
                done.append("cleaned")
                done.append(ending.is_told and ending.returns)
    except SystemExit as left:
        return done, left.code
    return done, None


@pytest.mark.parametrize(
    ("number", "taken_away", "sent_back", "returns", "calls", "code"),
    [
        (WALLTIME_SIGNAL, False, False, True, 1, 0),
        (signal.SIGTERM, True, False, True, 1, 0),  # preempted, or a limit of which no warning came
        (signal.SIGTERM, False, True, True, 0, 0),  # scontrol requeue: it is in the queue already
        (signal.SIGTERM, False, False, False, 0, 143),  # scancel
        (signal.SIGINT, False, False, False, 0, 143),
    ],
)
def test_a_signal_ends_the_work_in_order(requeued, number, taken_away, sent_back, returns, calls, code):
    ending = DriverEnding(lambda: taken_away, lambda: sent_back)
    assert end_by(ending, number) == (["cleaned", returns], code)
    assert len(requeued) == calls


def test_work_that_comes_to_its_end_is_not_told_anything(requeued):
    ending = DriverEnding(lambda: pytest.fail("asked"), lambda: pytest.fail("asked"))
    assert end_by(ending) == (["all", "cleaned", False], None)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and requeued == []


def test_the_scheduler_is_asked_once(requeued):
    asked = []

    def answer(name, value):
        asked.append(name)
        return value

    ending = DriverEnding(lambda: answer("taken", False), lambda: answer("sent", True))
    assert end_by(ending, signal.SIGTERM) == (["cleaned", True], 0)
    assert asked == ["taken", "sent"] and ending.returns and asked == ["taken", "sent"]


def test_a_second_signal_does_not_disturb_the_cleaning(requeued):
    ending, cleaned = DriverEnding(lambda: False, lambda: False), []
    with pytest.raises(SystemExit), ending.listening():
        try:
            os.kill(os.getpid(), WALLTIME_SIGNAL)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append("all")
    assert cleaned == ["all"] and not ending.returns, "it was cancelled meanwhile"


def test_an_exit_of_the_work_itself_stays_what_it_is(requeued):
    with pytest.raises(SystemExit) as left, DriverEnding(bool, bool).listening():
        raise SystemExit(3)
    assert left.value.code == 3
