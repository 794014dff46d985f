"""What is remembered of requests that workers were lost under."""

from collections.abc import Callable

import pytest

from slurminfer.router.control.blamed import MOST_REQUESTS
from slurminfer.router.control.messages import Blamed, BlamedRequests
from slurminfer.router.relay.losses.blame import GUILTY, Blame
from slurminfer.router.relay.losses.lost_workers import DYING_S, MEMORY_S, LostWorkers

from ...support.clock import Clock


class Life:
    def __init__(self, slot: int) -> None:
        self.slot, self.looks = slot, 0
        self._lost_at: float | None = None
        self.on_lost: Callable[[], None] | None = None

    @property
    def lost_at(self) -> float | None:
        self.looks += 1
        return self._lost_at

    def lose(self, at: float) -> None:
        self._lost_at = at
        if self.on_lost is not None:
            self.on_lost()


class Relay:
    """The memory of one relay, and what it has told."""

    def __init__(self):
        self.clock = Clock()
        self.told: list[Blamed] = []
        self.memory = LostWorkers(lambda: 8, self.told.append, self.clock)

    def lose(self, body, workers):
        """Let `workers` be lost under a request that then ends without an answer."""
        blame = self.memory.blame("t", body) or Blame()
        for number in range(workers):
            self.memory.lost(blame, Life(number), self.clock.now, has_begun=False)
        self.memory.ended("t", body, blame, is_answered=False)


@pytest.fixture
def relay():
    return Relay()


def test_a_request_that_was_refused_is_known_for_a_while(relay):
    relay.lose(b"x", 4)
    assert relay.memory.blame("t", b"x").is_guilty and relay.memory.blame("t", b"y") is None
    relay.clock.now += MEMORY_S
    assert relay.memory.blame("t", b"x") is None


def test_another_tenants_equal_request_is_another_one(relay):
    relay.lose(b"x", 4)
    assert relay.memory.blame("u", b"x") is None


def test_what_is_held_against_a_request_adds_up_when_it_comes_again(relay):
    relay.lose(b"x", 2)
    again = relay.memory.blame("t", b"x")
    assert not again.is_guilty and again.slots == {0, 1}
    for number in (1, 2, 3):
        relay.memory.lost(again, Life(number), relay.clock.now, has_begun=False)
    assert again.is_guilty, "the worker that was lost already does not count again"


def test_requests_with_the_same_bytes_at_the_same_time_do_not_add_up(relay):
    blames = [Blame() for _ in range(8)]
    for number, blame in enumerate(blames):
        relay.memory.lost(blame, Life(number), relay.clock.now, has_begun=False)
        relay.memory.ended("t", b"x", blame, is_answered=False)
    assert not relay.memory.blame("t", b"x").is_guilty


def test_a_request_that_was_answered_is_forgotten_in_all_relays(relay):
    relay.lose(b"x", 2)
    other = Relay()
    other.memory.hear(BlamedRequests([relay.told[-1]]))
    blame = other.memory.blame("t", b"x")
    assert blame is not None and blame.points > 0
    other.memory.ended("t", b"x", blame, is_answered=True)
    assert other.memory.blame("t", b"x") is None and other.told[-1].points == 0


@pytest.mark.parametrize(("after", "counts"), [(DYING_S - 1, True), (DYING_S + 1, False)])
def test_a_worker_lost_soon_after_its_500_counts(relay, after, counts):
    for number in range(4):
        one = Life(number)
        relay.memory.failed("t", b"x", one)
        one.lose(relay.clock.now + after)
    relay.clock.now += 2 * DYING_S
    blame = relay.memory.blame("t", b"x")
    assert blame.is_guilty if counts else blame is None


def test_workers_that_live_are_not_looked_through_for_each_request(relay):
    lives = [Life(number) for number in range(8)]
    for number in range(MOST_REQUESTS):
        relay.memory.failed("t", b"%d" % number, lives[number % 8])
    for _ in range(100):
        assert relay.memory.blame("t", b"0") is None
    assert sum(life.looks for life in lives) == 0
    lives[0].lose(relay.clock.now)
    blame = relay.memory.blame("t", b"0")
    assert blame is not None and blame.points > 0 and relay.memory.blame("t", b"1") is None
    looks = sum(life.looks for life in lives)
    for _ in range(100):
        relay.memory.blame("t", b"0")
    assert sum(life.looks for life in lives) == looks
    relay.clock.now += MEMORY_S + 1
    assert relay.memory.blame("t", b"0") is None and not relay.memory._failed


def test_what_is_remembered_is_bounded(relay):
    for number in range(MOST_REQUESTS + 1):
        relay.lose(b"%d" % number, 4)
        relay.memory.failed("t", b"%d" % number, Life(0))
    assert relay.memory.blame("t", b"0") is None
    assert relay.memory.blame("t", b"%d" % MOST_REQUESTS).points >= GUILTY
