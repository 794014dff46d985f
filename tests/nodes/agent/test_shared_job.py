"""Several workers in one job: processes of their own, of which one dies, and what ends them all."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from slurminfer.core.records import OrderRecord, WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.nodes.agent.hooks import Hooks
from slurminfer.nodes.agent.placement.shares import Share
from slurminfer.nodes.agent.shared_job import SharedJob
from slurminfer.nodes.agent.task import Task

from ...support.forking import ForkedCode
from ...support.waiting import eventually, has_ended

pytestmark = pytest.mark.process

SPEC = """
name = "several"
[model]
path = "{model}"
name = "m"
[[pool]]
name = "cpu"
workers_per_job = 2
cpus_per_task = 2
python = "{python}"
"""
FAKE = Path(__file__).parent / "fake_engine.py"


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDirectory:
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    python.chmod(0o700)
    made = RunDirectory.named("several")
    made.create()
    made.write_spec(parse_spec(SPEC.format(model=tmp_path, python=python)))
    return made


@pytest.fixture
def start(tmp_path, agent_process, run) -> Callable[..., ForkedCode]:
    """Starts the job; with two CPUs also on a machine that has fewer."""
    needs = "from slurminfer.nodes.agent import shares; shares.divide_cpus = lambda count, ids, _: [ids] * count"

    def go(before: str = "pass", **env: str) -> ForkedCode:
        before = f"{needs}; {before}" if len(os.sched_getaffinity(0)) < 2 else before
        place = env if "SLURM_JOB_ID" in env else {"SLURMINFER_LOCAL": "1", **env}
        return agent_process(run, before, tmp_path / "job.log", {**os.environ, **place})

    return go


def both(run: RunDirectory, state: WorkerState) -> list[WorkerRecord]:
    def look() -> list[WorkerRecord]:
        found = [run.read_worker(f"cpu-0.{number}") for number in range(2)]
        return [one for one in found if one is not None and one.state is state]

    eventually(lambda: len(look()) == 2, f"both are {state}")
    return look()


def test_workers_have_records_cpus_and_logs_of_their_own(run, start):
    job = start()
    first, second = both(run, WorkerState.READY)
    assert run.read_worker("cpu-0") is None
    assert (first.job, second.job) == (str(job.pid), str(job.pid))
    assert first.pool == "cpu" and first.socket != second.socket and first.key != second.key
    cpus = [os.sched_getaffinity(one.pid) for one in (first, second)]
    assert len(os.sched_getaffinity(0)) < 2 or not cpus[0] & cpus[1]
    assert all((run.logs_of(one.id) / "process.log").exists() for one in (first, second))
    assert all((run.logs_of(one.id) / "engine.0.0.log").exists() for one in (first, second))
    job.terminate()
    assert job.wait(30) == 0
    assert all("SIGTERM" in one.reason for one in both(run, WorkerState.GONE))
    eventually(lambda: has_ended(first.pid) and has_ended(second.pid))


def test_in_a_job_of_slurm_each_has_an_address_and_an_identity(run, start):
    job = start(SLURM_JOB_ID="77", SLURM_RESTART_COUNT="2", SLURM_PROCID="0", SLURMINFER_INTERFACE="lo")
    records = both(run, WorkerState.READY)
    assert [(one.job, one.epoch) for one in records] == [("77", 2)] * 2
    assert len({one.url for one in records if one.url}) == 2
    assert all(run.worker_identity_path(one.id, 2).exists() for one in records)
    assert all((run.logs_of(one.id) / "77_0_log.out").exists() for one in records)
    job.terminate()
    assert job.wait(30) == 0
    both(run, WorkerState.GONE)


def test_an_order_to_the_job_drains_all_workers(run, start):
    job = start()
    both(run, WorkerState.READY)
    run.write_order("cpu-0", OrderRecord(drain=True, reason="not needed"))
    assert job.wait(60) == 0
    assert [one.reason for one in both(run, WorkerState.GONE)] == ["not needed"] * 2


def test_the_walltime_signal_drains_all_and_only_the_job_requeues_itself(run, start, tmp_path):
    said = tmp_path / "requeued"
    handler = f"lambda *_: open({str(said)!r}, 'a').write('x')"
    job = start(f"import signal; signal.signal(signal.SIGUSR2, {handler})")
    both(run, WorkerState.READY)
    job.send_signal(signal.SIGUSR2)
    assert job.wait(60) == 0
    assert all(one.reason.startswith("walltime") for one in both(run, WorkerState.GONE))
    assert said.read_text() == "x"


def test_a_worker_that_has_served_is_started_again_while_the_other_serves(run, start):
    job = start()
    first, second = both(run, WorkerState.READY)
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: (run.read_worker("cpu-0.0") or first).pid != first.pid, "another engine")
    again, other = both(run, WorkerState.READY)
    assert again.pid != first.pid and other.pid == second.pid
    assert job.poll() is None


def test_a_killed_agent_leaves_nothing_while_the_other_serves(run, start):
    job = start(FAKE_ENGINE_CHILD="session")
    first, second = both(run, WorkerState.READY)
    of_first, of_second = (psutil.Process(one.pid).children() for one in (first, second))
    agent = psutil.Process(first.pid).parent()
    assert agent is not None and of_first and of_second
    agent.kill()
    eventually(lambda: (run.read_worker("cpu-0.0") or first).pid != first.pid, "another engine")
    both(run, WorkerState.READY)
    assert has_ended(first.pid) and not any(map(psutil.Process.is_running, of_first))
    assert all(map(psutil.Process.is_running, of_second)) and not has_ended(second.pid)
    job.terminate()
    assert job.wait(60) == 0
    eventually(lambda: not any(map(psutil.Process.is_running, of_second)))


def ended(run: RunDirectory, monkeypatch, load_s: float | None, times: int) -> list[str]:
    """What a job says of a worker that ends so often."""
    run.write_worker(
        WorkerRecord(
            id="cpu-0.0", pool="cpu", engine="native", model="m", state=WorkerState.GONE, host="n", job="7", epoch=0,
            pid=1, updated_at=0.0, load_s=load_s, reason="it died",
        )
    )  # fmt: skip
    task = Task(run, "cpu-0", 0, Hooks())
    job = SharedJob(task, [Share(task.pool, frozenset({0}))], lambda _task: None)
    monkeypatch.setattr(job, "_start", lambda number: None)
    return [job._after(0, 1) for _ in range(times)]


def test_a_worker_is_started_again_three_times(run, monkeypatch):
    monkeypatch.setenv("SLURMINFER_LOCAL", "1")
    assert ended(run, monkeypatch, 2.0, 4) == ["", "", "", "worker cpu-0.0 has ended: it died"]
    assert ended(run, monkeypatch, None, 1) == ["worker cpu-0.0 has ended: it died"]


def test_a_worker_that_never_serves_ends_the_job(run, start, tmp_path):
    job = start(FAKE_ENGINE_FAILS="1")
    assert job.wait(60) == 1
    assert "error: worker cpu-0." in (tmp_path / "job.log").read_text()
    both(run, WorkerState.GONE)


def test_nothing_outlives_a_job_that_is_killed(run, start):
    job = start()
    records = both(run, WorkerState.READY)
    agents = psutil.Process(job.pid).children()
    job.kill()
    job.wait()
    eventually(lambda: all(has_ended(one.pid) for one in records) and not any(map(psutil.Process.is_running, agents)))
