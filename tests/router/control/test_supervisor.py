"""The supervisor goes on when something raises what nobody has foreseen, and counts that."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from slurminfer.core.job import JobPhase
from slurminfer.core.records import (
    CONTROLLER_SILENCE_S,
    FleetRecord,
    PoolRecord,
    QueuedJob,
    QueueRecord,
    WorkerRecord,
    WorkerState,
)
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.deployment import DeploymentSpec
from slurminfer.core.spec.model import ModelSpec
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.router.control import relays as control
from slurminfer.router.control.board import Board
from slurminfer.router.control.messages import Suspect, Tenants, View
from slurminfer.router.control.supervisor import Supervisor

from ...support.clock import Clock

SPEC = DeploymentSpec(name="test", model=ModelSpec(path="stub-model"), pool=(PoolSpec(),))


class Relays(control.Relays):
    """What they are told."""

    def __init__(self):
        self.told: list[object] = []

    def tell(self, message):
        self.told.append(message)


def failing(times, then=lambda *_: None):
    """Raises so many times."""
    left = [None] * times

    def call(*given):
        if left:
            left.pop()
            raise ZeroDivisionError
        return then(*given)

    return call


@pytest.fixture
def supervised(tmp_path):
    """Runs `scene(supervisor, relays)` beside the supervisor's parts, which pause for no time."""
    run = RunDirectory(tmp_path / "run")
    run.create()

    def supervise(scene):
        async def all_of_it():
            supervisor, relays = Supervisor(run, SPEC, Board.create(1), lambda: None), Relays()
            await supervisor.start(relays)
            watching = asyncio.create_task(supervisor.watch())
            try:
                async with asyncio.timeout(20):
                    await scene(supervisor, relays)
                assert not watching.done()
            finally:
                watching.cancel()
                await asyncio.wait([watching])
                await supervisor.close()

        asyncio.run(all_of_it())

    return supervise


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("slurminfer.router.control.supervisor._TICK_S", 0)
    monkeypatch.setattr("slurminfer.core.background.rounds.PAUSE_S", 0)


def failures(supervisor):
    return {task: count for task, count in supervisor.counters.failed_rounds.items() if count}


async def until(condition):
    while not condition():
        await asyncio.sleep(0)


def test_relays_are_told_although_that_has_failed_at_first(supervised, caplog):
    async def scene(supervisor, relays):
        relays.told.clear()
        relays.tell = failing(2, relays.told.append)
        supervisor.registry.changed.set()
        await until(lambda: relays.told)
        assert relays.told == [View([])]
        assert failures(supervisor) == {"view": 2}

    supervised(scene)
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_a_clock_that_is_set_over_midnight_ends_the_day_too(supervised, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("slurminfer.router.control.supervisor._CLOCK_S", 0)
    times = SimpleNamespace(time=clock, monotonic=time.monotonic)
    monkeypatch.setattr("slurminfer.router.control.supervisor.time", times)

    async def scene(supervisor, relays):
        for _ in range(100):
            await asyncio.sleep(0)
        relays.told.clear()
        for _ in range(2):  # forwards and back
            clock.now = 88_400.0 - clock.now
            await until(lambda: any(isinstance(told, Tenants) for told in relays.told))
            relays.told.clear()

    supervised(scene)


def test_slots_are_looked_after_although_a_round_fails(supervised):
    async def scene(supervisor, relays):
        calls = []
        supervisor._slots.keep = failing(2, lambda *given: calls.append(given))
        await until(lambda: calls)
        assert failures(supervisor) == {"slots": 2}

    supervised(scene)


def test_a_relays_message_that_cannot_be_taken_does_not_end_the_relay(supervised):
    async def scene(supervisor, relays):
        supervisor.registry.suspect = failing(1)
        supervisor.heard(0, Suspect(slot=0, reason="", kind="lost", at=0.0))
        assert failures(supervisor) == {"messages": 1}

    supervised(scene)


def test_relays_hear_of_a_walltime_limit_that_was_changed(supervised, monkeypatch, tmp_path):
    monkeypatch.setattr("slurminfer.router.control.file_watch.PERIOD_S", 0)
    monkeypatch.setattr("slurminfer.router.control.supervisor._VIEW_PAUSE_S", 0)
    run, now = RunDirectory(tmp_path / "run"), time.time()
    run.write_worker(_worker(ends_at=now + 60))
    _say(run, JobPhase.RUNNING, now + 600)

    async def scene(supervisor, relays):
        assert relays.told[0].workers[0].ends_at == now + 600
        _say(run, JobPhase.RUNNING, now + 6000)
        await until(lambda: _views(relays)[0].ends_at == now + 6000)
        _say(run, JobPhase.PENDING, None)  # the agent of the next run of the job asks for its limit itself
        await until(lambda: _views(relays)[0].ends_at == now + 60)

    supervised(scene)


def _worker(ends_at):
    return WorkerRecord(
        id="workers-0", pool="workers", engine="native", model="stub-model", state=WorkerState.STARTING, host="n1",
        job="1", epoch=0, pid=1, updated_at=time.time(), capacity=8, ends_at=ends_at,
    )  # fmt: skip


def _say(run, phase, ends_at):
    said = QueuedJob(phase=phase, state=phase.upper(), ends_at=ends_at)
    run.write_queue(QueueRecord(written_at=time.time(), workers={"workers-0": said}))


def _views(relays):
    return next(message for message in reversed(relays.told) if isinstance(message, View)).workers


def test_relays_hear_what_the_controller_says_and_that_it_has_gone_silent(supervised, monkeypatch, tmp_path):
    monkeypatch.setattr("slurminfer.router.control.file_watch.PERIOD_S", 0)
    monkeypatch.setattr("slurminfer.router.control.supervisor._OUTLOOK_S", 0)
    monkeypatch.setattr("slurminfer.router.control.supervisor._VIEW_PAUSE_S", 0)

    async def scene(supervisor, relays):
        clock = [0.0]
        supervisor.controller._clock = lambda: clock[0]
        record = FleetRecord(written_at=1.0, pools={"workers": PoolRecord(wanted=0, may_come=True)})
        RunDirectory(tmp_path / "run").write_fleet(record)
        await until(lambda: "workers" in _outlooks(relays))
        assert _outlooks(relays)["workers"].may_come
        clock[0] = CONTROLLER_SILENCE_S + 1
        await until(lambda: not _outlooks(relays))

    supervised(scene)


def _outlooks(relays):
    """Of the last view."""
    return next(message.outlooks for message in reversed(relays.told) if isinstance(message, View))
