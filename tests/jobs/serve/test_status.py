"""What is said of workers that have ended."""

import time
from types import SimpleNamespace

import msgspec
import pytest

from slurminfer.core.job import JobPhase, JobStatus
from slurminfer.core.records import DeploymentRecord, JobRecord, NodeRecord, QueuedJob, WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec import parse_spec
from slurminfer.jobs.serve.status import look

ENDED = "999999@1.00"  # a process that is not there


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDirectory:
    """A worker of two nodes that was ready by its own word, and whose job has ended since."""
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    directory = RunDirectory.named("wide")
    directory.create()
    directory.write_spec(
        parse_spec("name = 'wide'\n[model]\npath = 'x'\n[[pool]]\nname = 'cpu'\nnodes = 2\ntensor_parallel = 2")
    )
    jobs = tuple(JobRecord(id=ENDED, role=role) for role in ("router", "cpu-0"))
    directory.claims.take(DeploymentRecord(launcher="local", claimed_by="1 on n1", claimed_at=0.0, jobs=jobs))
    directory.write_worker(
        WorkerRecord(
            id="cpu-0",
            pool="cpu",
            engine="native",
            model="x",
            state=WorkerState.READY,
            host="n1",
            job="7",
            epoch=1,
            pid=1,
            updated_at=0.0,
        )
    )
    return directory


def write_node(run: RunDirectory, epoch: int, reason: str) -> None:
    node = NodeRecord(node_rank=1, host="n2", pid=2, rendezvous="n1:1", updated_at=0.0, exit_code=-9, reason=reason)
    run.write_node("cpu-0", epoch, node)


def test_where_the_head_could_say_nothing_the_other_nodes_word_counts(run):
    write_node(run, 0, "of an earlier run")
    write_node(run, 1, "engine killed by SIGKILL")
    worker = look(run).workers[0]
    assert worker.state == "gone"
    assert worker.reason == "node rank 1 on n2: engine killed by SIGKILL"


def test_a_node_that_runs_is_no_reason(run):
    write_node(run, 1, "")
    assert look(run).workers[0].reason == "ENDED"


class Squeue:
    """Says PENDING, and lets something happen right after."""

    def __init__(self, then):
        self._then = then

    def observe(self, ids):
        found = {id: JobStatus(id=id, phase=JobPhase.PENDING, state="PENDING", reason="Priority") for id in ids}
        self._then()
        return found


def record(run: RunDirectory, **changes) -> WorkerRecord:
    found = run.read_worker("cpu-0")
    assert found is not None
    return msgspec.structs.replace(found, **changes)


@pytest.mark.parametrize(("written_s", "state"), [(60, "ready"), (-60, "pending")])
def test_a_heartbeat_newer_than_the_look_at_squeue_says_that_the_job_runs(run, monkeypatch, written_s, state):
    def write():
        run.write_worker(record(run, updated_at=time.time() + written_s))

    monkeypatch.setattr("slurminfer.jobs.serve.status.launcher_named", lambda name: Squeue(write))
    assert look(run).workers[0].state == state


def test_what_the_scheduler_says_is_left_for_the_routers_page(run, monkeypatch):
    waiting = JobStatus(id=ENDED, phase=JobPhase.PENDING, state="PENDING", reason="Priority", starts_at=1785000000.0)
    launcher = SimpleNamespace(observe=lambda ids: dict.fromkeys(ids, waiting))
    monkeypatch.setattr("slurminfer.jobs.serve.status.launcher_named", lambda name: launcher)
    look(run)
    queue = run.read_queue()
    assert queue is not None and abs(queue.written_at - time.time()) < 60
    assert queue.workers == {"cpu-0": QueuedJob(state="PENDING", reason="Priority", starts_at=1785000000.0)}
    run.clear_records()
    assert run.read_queue() is None


@pytest.mark.parametrize(("silent_s", "state"), [(5, "ready"), (300, "unreachable")])
def test_without_a_router_a_worker_is_believed_by_its_heartbeat(run, monkeypatch, silent_s, state):
    run.write_worker(record(run, updated_at=time.time() - silent_s))
    running = JobStatus(id=ENDED, phase=JobPhase.RUNNING, state="RUNNING")
    launcher = SimpleNamespace(observe=lambda ids: dict.fromkeys(ids, running))
    monkeypatch.setattr("slurminfer.jobs.serve.status.launcher_named", lambda name: launcher)
    worker = look(run).workers[0]
    assert worker.state == state
    assert worker.reason.startswith("no heartbeat for") == (state == "unreachable")


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        ({"state": "starting", "healthy": False, "reason": "starting"}, "starting"),
        ({"state": "ready", "healthy": True, "reason": ""}, "ready"),
        ({"state": "ready", "healthy": False, "reason": "/health fails"}, "unreachable"),
    ],
)
def test_a_worker_is_ready_when_the_router_has_seen_it_too(run, monkeypatch, seen, state):
    run.write_worker(record(run, updated_at=time.time()))
    running = JobStatus(id=ENDED, phase=JobPhase.RUNNING, state="RUNNING")
    launcher = SimpleNamespace(observe=lambda ids: dict.fromkeys(ids, running))
    monkeypatch.setattr("slurminfer.jobs.serve.status.launcher_named", lambda name: launcher)
    monkeypatch.setattr("slurminfer.jobs.serve.status._ask_router", lambda run, router: {"cpu-0": seen})
    assert look(run).workers[0].state == state
