"""The controller with a backfill pool: what is submitted, remembered and counted."""

from types import SimpleNamespace

import msgspec
import pytest

from slurminfer.core.job import JobPhase
from slurminfer.core.records import JobRecord, WorkerState
from slurminfer.core.spec.files import dump_spec, parse_spec
from slurminfer.jobs.fleet.rules.observed import PoolForecast, Start
from slurminfer.jobs.receipt.harvest import harvest

HOLES = """
[[pool]]
name = "holes"
backfill = true
max_workers = 8
time_min = "20"
time = "04:00:00"
gpus_per_node = 2
"""
PREDICTED_S = 3600 - 120 - 60


@pytest.fixture
def work(cluster, monkeypatch):
    """Requests that wait for the pool, and whether Slurm would start a job of an hour now."""
    found = SimpleNamespace(waiting=100, starts_now=True)
    spec = parse_spec(dump_spec(cluster.run.read_spec()) + HOLES)
    cluster.run.write_spec(spec)

    def complete(_spec, _desired, observed, now):
        wait_s = 0.0 if found.starts_now else 7200.0
        starts = (Start(time_s=14_400.0, wait_s=7200.0), Start(time_s=3600.0, wait_s=wait_s))
        return msgspec.structs.replace(observed, forecasts={"holes": PoolForecast(asked_at=now, starts=starts)})

    load = {"in_flight": 0, "waiting": 0, "waited_s": 0.0, "idle_s": 0.0}
    pools = lambda: {"pools": {"cpu": load, "holes": {**load, "waiting": found.waiting}}}  # noqa: E731
    monkeypatch.setattr(cluster.controller, "_ask_router", lambda router: ({}, pools()))
    schedule = SimpleNamespace(complete=complete, longest_s=lambda spec, now: {})
    monkeypatch.setattr(cluster.controller, "_schedule", schedule)
    return found


def holes(cluster) -> list[JobRecord]:
    return [job for job in cluster.deployment().jobs if job.role.startswith("holes-")]


def pool(cluster):
    return cluster.run.read_fleet().pools["holes"]


def test_jobs_fit_the_hole_and_never_go_back_to_the_queue(cluster, work):
    cluster.tick()
    (job,) = holes(cluster)
    assert job.predicted_s == PREDICTED_S
    request = cluster.table.requests[job.id]
    assert (request.time_s, request.time_min_s, request.slurm["no-requeue"]) == (3600, None, True)


def test_without_a_hole_the_pool_says_so_and_requests_may_wait(cluster, work):
    work.starts_now = False
    cluster.tick()
    assert holes(cluster) == []
    assert pool(cluster).waits == "there is no hole in Slurm's schedule for a job of 60 minutes or more now"
    assert pool(cluster).may_come
    said = len(cluster.decisions())
    cluster.tick(60)
    assert len(cluster.decisions()) == said, "once"


def test_one_that_has_served_and_ended_at_its_limit_is_no_failure_and_the_next_follows(cluster, work):
    cluster.tick()
    cluster.become("holes-0", WorkerState.STARTING)
    cluster.tick(10)
    cluster.become("holes-0", WorkerState.READY)
    cluster.tick(100)
    cluster.become("holes-0", WorkerState.DRAINING)
    cluster.tick(30)
    cluster.end("holes-0", JobPhase.DONE, "COMPLETED")
    cluster.tick(10)
    (ended,) = pool(cluster).ended
    assert ended.by_scheduler and not ended.has_missed
    assert [job.role for job in holes(cluster)] == ["holes-1"]
    assert not [order for order in cluster.run.orders_path.glob("holes-0*")]


def test_predicted_and_achieved_hours_are_counted(cluster, work):
    cluster.tick()
    cluster.become("holes-0", WorkerState.STARTING)
    cluster.tick(10)
    cluster.become("holes-0", WorkerState.READY)
    work.waiting = 8
    cluster.tick(100)
    cluster.tick(50)
    work.waiting = 0
    cluster.end("holes-0", JobPhase.FAILED, "PREEMPTED")
    cluster.tick(10)
    (line,) = harvest(cluster.run, cluster.run.read_spec()).lines()
    assert line.predicted_hours == pytest.approx(2 * PREDICTED_S / 3600)
    assert (line.unit, line.jobs, line.running) == ("GPU", 1, 0)
    assert line.achieved_hours == pytest.approx(2 * 60 / 3600)


def test_one_that_does_not_start_is_cancelled_and_the_next_comes_later(cluster, work):
    cluster.tick()
    cluster.tick(180)
    (job,) = holes(cluster)
    assert cluster.table.cancelled == [job.id]
    cluster.table.set(job.id, JobPhase.FAILED, "CANCELLED", started_at=cluster.now, ends_at=cluster.now)
    cluster.tick(10)
    assert pool(cluster).ended[0].has_missed and holes(cluster) == []
    assert pool(cluster).waits == "Slurm did not start the latest job, although there seemed to be a hole for it"
    cluster.tick(290)
    assert holes(cluster) == []
    cluster.tick(10)
    assert [job.role for job in holes(cluster)] == ["holes-1"]


def test_jobs_that_somebody_cancels_at_once_are_not_submitted_for_ever(cluster, work):
    submitted = set()
    for _ in range(120):
        cluster.tick(10)
        for job in holes(cluster):
            submitted.add(job.id)
            cluster.table.set(job.id, JobPhase.FAILED, "CANCELLED", started_at=cluster.now, ends_at=cluster.now)
    assert 3 <= len(submitted) <= 6
