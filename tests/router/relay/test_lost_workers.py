"""Which requests were at work when workers were lost."""

from dataclasses import dataclass

import pytest

from slurminfer.router.relay.lost_workers import DYING_S, MEMORY_S, MOST_REQUESTS, LostWorkers


@dataclass
class Life:
    life: tuple[str, str, int, int]
    lost_at: float | None = None


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def life(number):
    return Life((f"w-{number}", "1", 0, number))


def test_two_lives_bar_a_request_for_a_while():
    clock = Clock()
    lost_workers = LostWorkers(clock)
    lost_workers.lost(b"x", life(0))
    lost_workers.lost(b"x", life(0))
    assert not lost_workers.is_barred(b"x"), "one worker, lost to two requests with the same bytes"
    lost_workers.lost(b"x", life(1))
    assert lost_workers.is_barred(b"x") and not lost_workers.is_barred(b"y")
    clock.now += MEMORY_S
    assert not lost_workers.is_barred(b"x")


def test_a_request_that_was_answered_is_no_reason():
    lost_workers = LostWorkers(Clock())
    lost_workers.lost(b"x", life(0))
    lost_workers.answered(b"x")
    lost_workers.lost(b"x", life(1))
    assert not lost_workers.is_barred(b"x")


@pytest.mark.parametrize(("after", "barred"), [(DYING_S - 1, True), (DYING_S + 1, False)])
def test_a_worker_lost_soon_after_its_500_counts(after, barred):
    clock, workers = Clock(), [life(0), life(1)]
    lost_workers = LostWorkers(clock)
    for one in workers:
        lost_workers.failed(b"x", one)
        one.lost_at = clock.now + after
    clock.now += 2 * DYING_S
    assert lost_workers.is_barred(b"x") is barred


def test_what_is_remembered_is_bounded():
    lost_workers = LostWorkers(Clock())
    for number in range(MOST_REQUESTS + 1):
        for one in (life(0), life(1)):
            lost_workers.lost(b"%d" % number, one)
            lost_workers.failed(b"%d" % number, one)
    assert not lost_workers.is_barred(b"0") and lost_workers.is_barred(b"%d" % MOST_REQUESTS)
