"""What the controller notes of each job's use."""

import msgspec
import pytest

from slurminfer.core.job import JobPhase
from slurminfer.core.records import ROUTER, EnergyRecord, WorkerState
from slurminfer.jobs.receipt.ledger import Doing, JobUsage, Ledger

from .conftest import START, Cluster


@pytest.fixture
def asked(cluster, monkeypatch):
    """Requests in flight by worker, as the router tells; the test changes them, or takes the answer away (None)."""
    in_flight = {"cpu-0": 0, "cpu-1": 0}

    def ask(_router):
        if "away" in in_flight:
            return None, None
        return {worker: {"in_flight": number} for worker, number in in_flight.items()}, None

    monkeypatch.setattr(cluster.controller, "_ask_router", ask)
    return in_flight


def used(cluster: Cluster, role: str) -> JobUsage:
    jobs = [job for job in Ledger(cluster.run).read()[0] if job.role == role]
    return jobs[-1]


def test_loading_idling_and_serving_are_told_apart(cluster, asked):
    cluster.become("cpu-0", WorkerState.STARTING)
    cluster.tick()
    cluster.tick(40)
    cluster.become("cpu-0", WorkerState.READY)
    cluster.tick(10)
    asked["cpu-0"] = 3
    cluster.tick(20)
    asked["cpu-0"] = 0
    cluster.tick(5)
    cluster.end("cpu-0", JobPhase.DONE, "COMPLETED")
    cluster.tick(5)
    job = used(cluster, "cpu-0")
    assert (job.loading_s, job.idle_s, job.serving_s, job.running_s) == (50.0, 25.0, 5.0, 80.0)
    assert (job.started_at, job.ready_at, job.ended_at) == (START, START + 50, START + 80)
    assert job.overlap_s == 0.0


def test_the_router_serves_while_any_worker_does(cluster, asked):
    cluster.tick()
    asked["cpu-1"] = 1
    cluster.tick(10)
    cluster.tick(10)
    cluster.tick(30)
    router = used(cluster, ROUTER)
    assert (router.pool, router.idle_s, router.serving_s) == (ROUTER, 10.0, 40.0)


def test_while_the_router_does_not_answer_nobody_knows_what_a_worker_does(cluster, asked):
    cluster.tick()
    asked["away"] = 1
    cluster.tick(10)
    cluster.tick(40)
    job = used(cluster, "cpu-0")
    assert (job.running_s, job.idle_s, job.serving_s, job.doing) == (50.0, 10.0, 0.0, Doing.UNSEEN)


def test_a_job_begins_and_ends_when_slurm_says_so(cluster, asked):
    cluster.become("cpu-0", WorkerState.STARTING)
    cluster.now += 100
    job = cluster.job("cpu-0")
    cluster.table.set(job, JobPhase.RUNNING, started_at=START + 30, partition="gpu")
    cluster.tick()
    cluster.table.set(job, JobPhase.FAILED, "FAILED", started_at=START + 30, ends_at=START + 120)
    cluster.tick(50)
    ended = used(cluster, "cpu-0")
    assert (ended.started_at, ended.ended_at, ended.loading_s, ended.partition) == (
        START + 30,
        START + 120,
        90.0,
        "gpu",
    )


def test_waiting_in_the_queue_is_no_use(cluster, asked):
    job = cluster.job("cpu-0")
    cluster.table.set(job, JobPhase.PENDING)
    cluster.tick()
    cluster.tick(1000)
    cluster.end("cpu-0", state="CANCELLED")
    cluster.tick(10)
    ended = used(cluster, "cpu-0")
    assert (ended.running_s, ended.started_at) == (0.0, None)


def test_a_worker_beside_its_predecessor_is_an_overlap(cluster, asked):
    cluster.tick()
    while len(cluster.workers()) == 2:
        cluster.tick(30)
    successor = cluster.workers()[-1]
    cluster.become(successor, WorkerState.STARTING)
    cluster.tick(10)
    cluster.tick(30)
    cluster.become(successor, WorkerState.READY)
    cluster.tick(10)
    (job,) = [job for job in cluster.deployment().jobs if job.role == successor]
    cluster.end(job.replaces, JobPhase.DONE, "COMPLETED")
    cluster.tick(10)
    cluster.tick(50)
    assert used(cluster, successor).overlap_s == 40.0
    assert used(cluster, job.replaces).overlap_s == 0.0


def test_the_energy_is_what_the_agent_has_told_last(cluster, asked):
    def tell(joules: float, **fields) -> None:
        record = cluster.run.read_worker("cpu-0")
        cluster.run.write_worker(msgspec.structs.replace(record, energy=EnergyRecord(cpu_j=joules), **fields))

    tell(100.0)
    cluster.tick()
    tell(900.0, job="99")  # of somebody else's
    cluster.tick(40)
    assert used(cluster, "cpu-0").energy == EnergyRecord(cpu_j=100.0)
    tell(150.0, job=cluster.job("cpu-0"))
    cluster.end("cpu-0", JobPhase.DONE, "COMPLETED")
    cluster.tick(10)
    assert used(cluster, "cpu-0").energy == EnergyRecord(cpu_j=150.0)


@pytest.mark.parametrize("by", [3600.0, -3600.0])
def test_setting_the_clock_is_no_use(cluster, asked, by):
    cluster.tick()
    cluster.tick(10)
    cluster.clock_is_ahead += by
    cluster.tick(10)
    cluster.tick(10)
    cluster.tick(30)
    job = used(cluster, "cpu-0")
    assert (job.running_s, job.idle_s) == (60.0, 60.0)


def test_a_clock_that_was_set_back_while_no_controller_ran_stops_no_counting(cluster, asked):
    cluster.tick()
    cluster.tick(40)
    cluster.controller.close()
    cluster.clock_is_ahead -= 3600
    cluster.controller = cluster.new_controller()
    cluster.tick(10)
    cluster.tick(40)
    assert used(cluster, "cpu-0").running_s == 80.0


def test_another_controller_goes_on_where_the_first_was(cluster, asked):
    cluster.tick()
    cluster.tick(40)
    cluster.controller.close()
    cluster.controller = cluster.new_controller()
    cluster.tick(600)
    job = used(cluster, "cpu-0")
    assert (job.running_s, job.idle_s) == (640.0, 40.0)


def test_jobs_that_an_earlier_controller_knew_and_that_are_gone_have_ended(cluster, asked):
    gone = JobUsage(job="99", role="cpu-7", pool="cpu", submitted_at=5.0, looked_at=50.0, running_s=40.0)
    Ledger(cluster.run).write_living([gone])
    cluster.tick()
    assert used(cluster, "cpu-7").ended_at == 50.0


def test_a_ledger_that_cannot_be_written_stops_nothing_and_is_written_later(cluster, asked, caplog):
    cluster.tick()
    cluster.end("cpu-0", state="CANCELLED")
    cluster.run.ended_jobs_path.mkdir()
    cluster.tick(10)
    assert cluster.workers() == ["cpu-1", "cpu-2"]
    assert "ended-jobs.jsonl" in caplog.text
    cluster.run.ended_jobs_path.rmdir()
    cluster.tick(10)
    assert used(cluster, "cpu-0").ended_at == START + 10
