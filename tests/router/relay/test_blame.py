"""How much lost workers say against a request."""

import random
from types import SimpleNamespace

import pytest

from slurminfer.router.relay.losses import blame
from slurminfer.router.relay.losses.blame import (
    ALONE_S,
    GUILTY,
    MOST_BEGUN,
    MOST_UNBEGUN,
    PAUSE_S,
    Blame,
    Losses,
    Trial,
)

from ...support.clock import Clock


class Worker:
    def __init__(self):
        self.suspects = 0

    def suspected(self, by):
        self.suspects += by


def losses(workers=8):
    clock = Clock()
    return Losses(lambda: workers, clock), clock


def test_where_no_others_are_lost_a_loss_counts_fully():
    found, _ = losses()
    assert found.points((), 0.3, has_begun=False) == found.points((), 20.0, has_begun=False) == MOST_UNBEGUN
    assert found.points((), 0.3, has_begun=True) == MOST_BEGUN


def test_four_workers_are_lost_to_one_request_or_seven_that_begin_to_answer():
    for most, workers in ((MOST_UNBEGUN, 4), (MOST_BEGUN, 7)):
        one = Blame()
        for slot in range(workers):
            assert not one.is_guilty
            one.add(slot, most)
        assert one.is_guilty


def test_the_requests_own_losses_excuse_nothing():
    found, _ = losses()
    for slot in range(4):
        found.note(slot)
    assert found.points(range(4), 0.3, has_begun=False) == MOST_UNBEGUN
    assert found.points((), 0.3, has_begun=False) < MOST_UNBEGUN


def test_the_longer_a_worker_had_the_request_the_less_its_loss_counts():
    found, _ = losses()
    for slot in range(8):
        found.note(slot)
    counted = [found.points((), had_s, has_begun=False) for had_s in (0.01, 0.3, 1.0, 3.0, 30.0)]
    assert counted == sorted(counted, reverse=True)
    assert counted[0] > 1.5 and counted[-1] < 0, "a loss that was to be expected takes points away"


def test_losses_are_forgotten_after_a_minute():
    found, clock = losses()
    for slot in range(8):
        found.note(slot)
    clock.now += 61
    assert found.points((), 1.0, has_begun=False) == MOST_UNBEGUN


def test_a_request_at_stake_goes_where_no_other_one_is():
    workers, first, second = [Worker(), Worker()], Blame(points=GUILTY - MOST_UNBEGUN), Blame(points=GUILTY - 1)
    first.enter(workers[0])
    assert second.allowed(workers) == [workers[1]]
    assert Blame(points=1.0).allowed(workers) == workers, "what is hardly suspicious may go anywhere"
    assert first.leave() and not first.leave()
    assert second.allowed(workers) == workers


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(blame, "time", SimpleNamespace(monotonic=clock))
    return clock


def test_requests_that_have_waited_long_for_their_turn_are_tried_together(clock):
    worker, (first, second, third) = Worker(), (Blame(points=6.0) for _ in range(3))
    first.enter(worker)
    assert second.allowed([]) == [] == second.allowed([worker]) == third.allowed([worker])
    clock.now += ALONE_S + 1
    assert second.allowed([]) == [], "who waits for a worker does not wait for a turn"
    assert third.allowed([worker]) == [], "the first one is still tried alone"
    first.leave()
    assert third.allowed([worker]) == [worker]
    third.enter(worker)
    assert second.allowed([worker]) == [], "its time has begun anew"
    clock.now += ALONE_S + 1
    assert second.allowed([worker]) == [worker]
    second.enter(worker)
    assert worker.suspects == 2
    for one in (second, third):
        one.leave()
        one.add(7, MOST_UNBEGUN)
        assert one.is_at_stake and not one.is_guilty, "it may have been the other one"
    clock.now += 10 * ALONE_S
    second.enter(worker)
    assert third.allowed([worker]) == [], "the next time it is tried alone"
    second.leave()
    second.add(8, MOST_UNBEGUN)
    assert second.is_guilty


class Few:
    """Requests that are all at stake, and one worker at a time, `restart_s` after the one before was lost."""

    def __init__(self, clock, *, count, answer_s, restart_s):
        self.clock, self.answer_s, self.restart_s = clock, answer_s, restart_s
        self.blames = [Blame(points=6.0, slots={0, 1, 2}) for _ in range(count)]
        self.poison = self.blames[count * 2 // 3]
        self.waiting, self.trying = list(self.blames), {}
        self.worker, self.back_at, self.taken = None, clock.now + restart_s, 0
        self.losses, self.refused = Losses(lambda: 1, clock), []

    def step(self):
        self.clock.now += 0.5
        if self.worker is None and self.clock.now >= self.back_at:
            self.worker = Worker()
        for one in list(self.waiting):
            if self.worker is None:
                assert not one.allowed([])
            elif one.allowed([self.worker]):
                one.enter(self.worker)
                self.waiting.remove(one)
                self.trying[id(one)] = one, self.clock.now
        for one, since in list(self.trying.values()):
            if one is self.poison and self.clock.now > since:
                self.lose()
                return
            if self.clock.now >= since + self.answer_s:
                one.leave(has_begun=True)
                del self.trying[id(one)]

    def lose(self):
        self.taken += 1
        slot, lost = 2 + self.taken, list(self.trying.values())
        for one, since in lost:
            one.leave()
            one.add(slot, self.losses.points({*one.slots, slot}, self.clock.now - since, has_begun=False))
            self.losses.note(slot)
            (self.refused if one.is_guilty else self.waiting).append(one)
        self.trying.clear()
        self.worker, self.back_at = None, self.clock.now + self.restart_s


@pytest.mark.parametrize(
    ("count", "answer_s", "restart_s", "most"), [(30, 0.5, 40.0, 1), (60, 10.0, 40.0, 7), (500, 60.0, 5.0, 10)]
)
def test_nobody_is_refused_beside_the_poison_where_there_are_few_workers(clock, count, answer_s, restart_s, most):
    few = Few(clock, count=count, answer_s=answer_s, restart_s=restart_s)
    while few.waiting or few.trying:
        few.step()
    assert few.refused == [few.poison] and few.taken <= most


# In virtual time: workers that are killed at random, and requests at them.


class Storm:
    """Requests at workers of which one is killed and replaced about every so many seconds."""

    def __init__(self, kill_every_s, workers, seed):
        self.clock, self.random = Clock(), random.Random(seed)
        self.losses = Losses(lambda: workers, self.clock)
        self.slots, self.kill_every_s = list(range(workers)), kill_every_s
        self.kill_at = self.clock.now + kill_every_s

    def place(self, request, pause_s=0.0):
        request.slot, request.sent_at = self.random.choice(self.slots), self.clock.now + pause_s

    def lose(self, slot, requests):
        """Let a worker be lost; the requests that are refused for it."""
        self.slots[self.slots.index(slot)] = max(self.slots) + 1
        for request in requests:
            if request.slot == slot:
                had_s = self.clock.now - request.sent_at
                if had_s < 0:
                    self.place(request, -had_s)
                    continue
                own, has_begun = {*request.blame.slots, slot}, request.streams and had_s > request.prefill_s
                request.blame.add(slot, self.losses.points(own, had_s, has_begun=has_begun))
                self.losses.note(slot)
                self.place(request, PAUSE_S if request.blame.is_at_stake else 0.0)
        return [request for request in requests if request.blame.is_guilty]

    def step(self, requests):
        self.clock.now += 0.05
        if self.clock.now < self.kill_at:
            return []
        self.kill_at += self.random.expovariate(1 / self.kill_every_s)
        return self.lose(self.random.choice(self.slots), requests)


class Request:
    def __init__(self, prefill_s, answer_s, streams):
        self.prefill_s, self.left_s, self.streams = prefill_s, prefill_s + answer_s, streams
        self.blame = Blame()
        self.slot, self.sent_at = 0, 0.0


@pytest.mark.parametrize(("kill_every_s", "workers"), [(2.0, 8), (2.0, 4), (0.5, 8)])
@pytest.mark.parametrize(("prefill_s", "answer_s", "streams"), [(0.2, 8.0, True), (1.0, 8.0, True), (0.2, 4.0, False)])
def test_nobody_is_refused_for_workers_that_are_killed_all_the_time(
    kill_every_s, workers, prefill_s, answer_s, streams
):
    storm, answered = Storm(kill_every_s, workers, seed=1), 0
    requests: list[Request] = []
    for _ in range(600):
        while len(requests) < 100:
            requests.append(Request(prefill_s, answer_s, streams))
            storm.place(requests[-1])
        assert storm.step(requests) == []
        done = [one for one in requests if storm.clock.now - one.sent_at > one.left_s]
        answered += len(done)
        requests = [one for one in requests if one not in done]
    assert answered > 50


@pytest.mark.parametrize(("kill_every_s", "most"), [(1e9, 4), (10.0, 5), (2.0, 8)])
def test_a_request_that_takes_its_workers_down_is_told_from_those_that_are_killed_anyway(kill_every_s, most):
    for seed in range(10):
        storm, taken = Storm(kill_every_s, workers=8, seed=seed), 0
        poison, others = Request(0.3, 0.0, False), [Request(0.2, 1e9, True) for _ in range(63)]
        requests = [poison, *others]
        for request in requests:
            storm.place(request)
        while not poison.blame.is_guilty:
            storm.step(requests)
            if storm.clock.now - poison.sent_at >= 0.3:
                taken += 1
                storm.lose(poison.slot, requests)
        assert taken <= most
        assert not any(one.blame.is_guilty for one in others)


def tried_together(count=2):
    trial, workers = Trial(), [Worker(), Worker()]
    return trial, [Blame(trial=trial) for _ in range(count)], workers


def test_of_equal_requests_one_is_tried_and_the_others_learn_from_it():
    _, (first, second), workers = tried_together()
    assert first.allowed(workers) == second.allowed(workers) == workers
    first.enter(workers[0])
    assert first.allowed(workers) == workers and not second.allowed(workers)
    first.add(7, MOST_UNBEGUN)
    assert first.leave(), "the others are told"
    assert second.allowed(workers) == workers
    second.learn()
    assert (second.points, second.slots) == (MOST_UNBEGUN, {7})
    second.enter(workers[1])
    assert not first.allowed(workers) and not first.leave(), "it is the other one's turn"
    assert not first.allowed(workers)


def test_once_an_answer_begins_no_equal_request_waits_or_learns():
    trial, (first, second, third), workers = tried_together(3)
    first.add(7, MOST_UNBEGUN)
    first.enter(workers[0])
    assert first.leave(has_begun=True)
    second.learn()
    second.enter(workers[0])
    assert second.points == 0.0 and third.allowed(workers) == workers and trial.holder is second


def test_nobody_waits_for_an_equal_request_for_ever():
    trial, (first, second), workers = tried_together()
    first.enter(workers[0])
    trial.held_until = 0.0
    assert second.allowed(workers) == workers
