"""Submissions that nobody finished, and controllers that were stopped while another one took over."""

import errno
from contextlib import suppress

import msgspec
import pytest

from slurminfer.core import files
from slurminfer.core.errors import SlurminferError, SubmissionUnclearError
from slurminfer.core.job import JobPhase
from slurminfer.core.records import CONTROLLER_SILENCE_S, IntendedJob, ScaleRecord, WorkerState
from slurminfer.jobs.serve.requests import worker_request

from .conftest import Cluster


@pytest.fixture
def short(cluster):
    """A deployment that lacks a worker, and whose controller knows it at the next look."""
    cluster.tick()
    cluster.end("cpu-0", state="CANCELLED")
    return cluster


def look(cluster, controller, seconds=0.0):
    """Let a controller look that is not the cluster's own."""
    own, cluster.controller = cluster.controller, controller
    cluster.tick(seconds)
    cluster.controller = own


def take_over(cluster):
    """Another controller, and what lets it take the lease of one that is silent, and look."""
    other = cluster.new_controller()

    def happens():
        cluster.table.while_submitting = lambda: None
        look(cluster, other)
        look(cluster, other, CONTROLLER_SILENCE_S + 1)

    return other, happens


def test_a_job_whose_submission_took_too_long_is_noted_by_the_one_who_has_taken_over(short):
    other, happens = take_over(short)
    short.table.while_submitting = happens
    assert short.tick(10)
    # The other one has submitted its own, looks for the first, and sees that it is one too many.
    assert list(short.deployment().intended) == ["cpu-2"] and short.workers() == ["cpu-1", "cpu-3"]
    assert not short.table.cancelled
    look(short, other)
    assert short.deployment().intended == {} and "cpu-2" in short.workers()
    look(short, other, 10)
    assert len(short.table.cancelled) == 1


def test_a_job_that_nobody_waits_for_any_more_is_cancelled_by_who_has_submitted_it(short):
    other, happens = take_over(short)

    def happens_and_lasts():
        happens()
        for _ in range(4):
            look(short, other, 50)

    short.table.while_submitting = happens_and_lasts
    assert short.tick(10)
    assert short.deployment().intended == {} and short.workers() == ["cpu-1", "cpu-3"]
    names = {job: request.name for job, request in short.table.requests.items() if request}
    assert [names[job] for job in short.table.cancelled] == ["d-cpu-2"]


def test_what_another_one_has_noted_meanwhile_is_not_overwritten(short):
    other, happens = take_over(short)
    short.table.while_submitting = happens
    short.tick(10)
    look(short, other)
    noted = [job.id for job in short.deployment().jobs]
    assert sorted(noted) == sorted(short.table.jobs.keys() - {"2"})


def test_a_controller_that_was_stopped_for_long_does_nothing_when_it_wakes(cluster):
    cluster.tick()
    other = cluster.new_controller()
    look(cluster, other)
    look(cluster, other, CONTROLLER_SILENCE_S + 1)
    cluster.end("cpu-0", state="CANCELLED")
    submitted = len(cluster.table.requests)
    assert cluster.tick(1)
    assert len(cluster.table.requests) == submitted and not cluster.table.cancelled


def test_a_job_that_slurm_may_have_taken_is_looked_for(short):
    def taken():
        raise SubmissionUnclearError("sbatch gave no answer")

    short.table.while_submitting = taken
    short.tick(10)
    intended = short.deployment().intended
    assert list(intended) == ["cpu-2"] and short.workers() == ["cpu-1"]
    fleet = short.run.read_fleet()
    assert fleet is not None and "no answer" in fleet.pools["cpu"].waits


def test_a_found_job_that_could_do_nothing_is_ended(short):
    short.table.dies = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        short.tick(10)
    short.table.halves = {"4"}
    short.controller.close()
    short.controller = short.new_controller()
    short.tick(10)
    assert short.table.cancelled == ["4"] and short.deployment().intended == {}
    assert short.workers() == ["cpu-1", "cpu-3"]


def test_a_found_successor_still_replaces_its_predecessor(cluster):
    cluster.tick()
    intended = {"cpu-2": IntendedJob(at=cluster.now, slot=2, replaces="cpu-0")}
    cluster.run.claims.update(msgspec.structs.replace(cluster.deployment(), intended=intended))
    cluster.tick()
    cluster.table.submit(worker_request(cluster.run.read_spec(), cluster.run, "cpu-2", slot=2))
    cluster.tick(10)
    (job,) = [job for job in cluster.deployment().jobs if job.role == "cpu-2"]
    assert (job.slot, job.replaces) == (2, "cpu-0") and not cluster.table.cancelled


@pytest.fixture(params=[-5, 5])
def clock(cluster, request):
    """Sets the clock by hours; the workers' walltime is long enough."""
    for worker in ("cpu-0", "cpu-1"):
        record = msgspec.structs.replace(cluster.run.read_worker(worker), ends_at=cluster.now + 10 * 86400)
        cluster.run.write_worker(record)
    cluster.tick()

    def set_clock():
        cluster.clock_is_ahead = request.param * 3600.0

    return set_clock


def test_a_clock_that_is_set_makes_no_time_pass(cluster, clock):
    cluster.become("cpu-0", WorkerState.DRAINING)
    cluster.table.set(cluster.job("cpu-0"), JobPhase.PENDING)
    cluster.tick(10)
    clock()
    cluster.tick(10)
    cluster.become("cpu-0", WorkerState.STARTING, epoch=1)
    cluster.table.set(cluster.job("cpu-0"), JobPhase.RUNNING, ends_at=cluster.now + 10 * 86400)
    cluster.tick(10)
    cluster.tick(10)
    assert cluster.workers() == ["cpu-0", "cpu-1"] and not cluster.table.cancelled
    fleet = cluster.run.read_fleet()
    assert fleet is not None and fleet.pools["cpu"].wait_s == (20.0,) and fleet.pools["cpu"].hours < 0.1


def test_a_pool_that_failed_is_tried_again_whatever_the_clock_says(cluster, clock):
    cluster.end("cpu-0")
    cluster.tick()
    clock()
    cluster.tick(5)
    assert cluster.workers() == ["cpu-1"]
    cluster.tick(20)
    assert cluster.workers() == ["cpu-1", "cpu-2"]


@pytest.mark.parametrize("hours", [-5, 5])
def test_another_try_that_a_user_asks_for_needs_no_equal_clocks(cluster, hours):
    cluster.tick()
    for worker in ("cpu-0", "cpu-1"):
        cluster.end(worker)
    cluster.tick()
    cluster.run.write_scale(ScaleRecord(asked_at={"cpu": cluster.now + hours * 3600}))
    cluster.tick(1)
    assert cluster.workers() == ["cpu-2", "cpu-3"]
    for worker in ("cpu-2", "cpu-3"):
        cluster.end(worker)
    cluster.tick(1)
    cluster.tick(1)
    assert cluster.workers() == []


def test_a_serve_on_a_machine_whose_clock_is_behind_may_finish(tmp_path):
    cluster = Cluster(tmp_path, claimed_by="1@2-00000000 on elsewhere", is_complete=False)
    cluster.end("cpu-0", state="CANCELLED")
    cluster.clock_is_ahead = 3600.0
    cluster.tick(10)
    cluster.tick(500)
    assert cluster.workers() == ["cpu-0", "cpu-1"]


class Interruption:
    """What writing a file meets from a certain file on: a full disk, or the end of the process."""

    def __init__(self, monkeypatch, problem: BaseException, after: int, *, is_written: bool) -> None:
        self.left, self.problem, self.is_written, self.is_over = after, problem, is_written, False
        self.write = files._write
        monkeypatch.setattr(files, "_write", self)

    def __call__(self, path, text, mode):
        self.left -= 1
        if self.is_over or self.left >= 0:
            return self.write(path, text, mode)
        if self.is_written:
            self.write(path, text, mode)
        raise self.problem


@pytest.mark.parametrize("after", range(12))
@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_whichever_file_could_not_be_written_no_job_is_lost_or_made_twice(short, monkeypatch, problem, after):
    interruption = Interruption(monkeypatch, problem, after, is_written=after % 2 == 1)
    for _ in range(3):
        with suppress(SlurminferError, KeyboardInterrupt):
            short.now += 10
            short.controller.tick()
    interruption.is_over = True
    if isinstance(problem, KeyboardInterrupt):
        short.now += CONTROLLER_SILENCE_S
        short.controller = short.new_controller()
    for _ in range(6):
        short.tick(40)
        for job in short.table.cancelled:
            short.table.set(job, JobPhase.FAILED, "CANCELLED")
    living = {job for job, status in short.table.jobs.items() if status.phase.is_living}
    assert living == {job.id for job in short.deployment().jobs} and len(living) == 3
    assert short.deployment().intended == {}
