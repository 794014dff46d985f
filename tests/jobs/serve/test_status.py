"""What is said of workers that have ended."""

import os
import time
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from slurminfer.core.errors import EngineError, RunStoppedError
from slurminfer.core.job import JobPhase, JobStatus
from slurminfer.core.processes import process_id
from slurminfer.core.records import (
    DecisionRecord,
    DeploymentRecord,
    EndedWorker,
    FleetRecord,
    JobRecord,
    NodeRecord,
    PoolRecord,
    QueuedJob,
    RouterRecord,
    WorkerRecord,
    WorkerState,
)
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.serve.status.failed import require_not_failed
from slurminfer.jobs.serve.status.state import DeploymentView
from slurminfer.jobs.serve.status.status import _router_job, look, until_ready
from slurminfer.jobs.serve.status.views import print_views, wait_until_ready
from slurminfer.slurm.queue import parse_queue

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

    monkeypatch.setattr("slurminfer.jobs.serve.status.status.launcher_named", lambda name: Squeue(write))
    assert look(run).workers[0].state == state


class Sees:
    """Says of every job that it is in this phase."""

    def __init__(self, phase):
        self._phase = phase

    def observe(self, ids):
        return {id: JobStatus(id=id, phase=self._phase, state=self._phase.name) for id in ids}


@pytest.mark.parametrize(("phase", "ids"), [(JobPhase.PENDING, ["cpu-0"]), (JobPhase.RUNNING, ["cpu-0.0", "cpu-0.1"])])
def test_workers_that_share_a_job_are_shown_one_by_one_once_it_runs(run, monkeypatch, phase, ids):
    for number in range(2):
        run.write_worker(record(run, id=f"cpu-0.{number}", updated_at=time.time(), remark=f"no {number}"))
    (run.workers_path / "cpu-0.json").unlink()
    monkeypatch.setattr("slurminfer.jobs.serve.status.status.launcher_named", lambda name: Sees(phase))
    workers = look(run).workers
    assert [worker.id for worker in workers] == ids
    assert {worker.job for worker in workers} == {ENDED}
    if phase is JobPhase.RUNNING:
        assert [worker.remark for worker in workers] == ["no 0", "no 1"]


def test_what_the_scheduler_says_is_left_for_the_routers_page(run, monkeypatch):
    waiting = JobStatus(id=ENDED, phase=JobPhase.PENDING, state="PENDING", reason="Priority", starts_at=1785000000.0)
    launcher = SimpleNamespace(observe=lambda ids: dict.fromkeys(ids, waiting))
    monkeypatch.setattr("slurminfer.jobs.serve.status.status.launcher_named", lambda name: launcher)
    look(run)
    queue = run.read_queue()
    assert queue is not None and abs(queue.written_at - time.time()) < 60
    assert queue.workers == {
        "cpu-0": QueuedJob(phase=JobPhase.PENDING, state="PENDING", reason="Priority", starts_at=1785000000.0)
    }
    run.clear_records()
    assert run.read_queue() is None


@pytest.mark.parametrize(("silent_s", "state"), [(5, "ready"), (300, "unreachable")])
def test_without_a_router_a_worker_is_believed_by_its_heartbeat(run, monkeypatch, silent_s, state):
    run.write_worker(record(run, updated_at=time.time() - silent_s))
    running = JobStatus(id=ENDED, phase=JobPhase.RUNNING, state="RUNNING")
    launcher = SimpleNamespace(observe=lambda ids: dict.fromkeys(ids, running))
    monkeypatch.setattr("slurminfer.jobs.serve.status.status.launcher_named", lambda name: launcher)
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
    monkeypatch.setattr("slurminfer.jobs.serve.status.status.launcher_named", lambda name: launcher)
    monkeypatch.setattr("slurminfer.jobs.serve.status.status._ask_router", lambda run, router: {"cpu-0": seen})
    assert look(run).workers[0].state == state


@pytest.mark.parametrize(("backend", "page"), [("native", "http://n1:30000/"), ("sglang", None)])
def test_the_status_page_is_named_while_the_router_answers(run, monkeypatch, backend, page):
    lines = f"name = 'wide'\n[model]\npath = 'x'\n[[pool]]\nname = 'cpu'\n[router]\nbackend = '{backend}'\n"
    run.write_spec(parse_spec(lines))
    run.write_router(
        RouterRecord(url="http://n1:30000", host="n1", job=ENDED, pid=1, epoch=0, started_at=0.0),
    )
    assert look(run).status_page is None
    monkeypatch.setattr("slurminfer.jobs.serve.status.status._ask_router", lambda run, router: {})
    assert look(run).status_page == page


def test_of_two_routers_the_one_that_clients_reach_is_shown(run, monkeypatch):
    jobs = [JobRecord(id=name, role="router") for name in ("7", "8", "9")]
    states = dict(zip("789", ("COMPLETED", "RUNNING", "PENDING"), strict=True))
    phases = {"COMPLETED": JobPhase.DONE, "RUNNING": JobPhase.RUNNING, "PENDING": JobPhase.PENDING}
    statuses = {name: JobStatus(id=name, phase=phases[state], state=state) for name, state in states.items()}

    def shown(states_of=statuses, **fields):
        record = RouterRecord(url="http://n1:1", host="n1", pid=1, epoch=0, started_at=0.0, **fields)
        found = _router_job(jobs, states_of, record)
        return found and found.id

    assert shown(job="8") == "8"
    assert shown(job="7") == "8"
    both = {**statuses, "9": statuses["8"]}
    assert (shown(both, job="8"), shown(both, job="9")) == ("8", "9")
    assert _router_job([], {}, None) is None


def test_a_router_that_has_just_been_replaced_is_looked_for_once_more(run, monkeypatch):
    records = [
        RouterRecord(url=f"http://{name}:1", private_url=f"https://{name}:2", host=name, job="7", pid=1, epoch=0,
                     started_at=0.0)
        for name in ("n1", "n2")
    ]  # fmt: skip
    run.write_router(records[0])

    def ask(run, router):
        run.write_router(records[1])
        return {} if router == records[1] else None

    monkeypatch.setattr("slurminfer.jobs.serve.status.status._ask_router", ask)
    monkeypatch.setattr("slurminfer.jobs.serve.status.status._REPLACED_S", 0.0)
    assert look(run).endpoint == "http://n2:1/v1"


def test_the_terminal_shows_the_status_page_and_the_endpoint(capsys, run, monkeypatch):
    view = DeploymentView(
        name="wide", state="ready", endpoint="http://n1:30000/v1", status_page="http://n1:30000/", router_answers=True
    )
    print_views([view], as_json=False)
    assert "\n  status page: http://n1:30000/\n" in capsys.readouterr().out
    monkeypatch.setattr("slurminfer.jobs.serve.status.views.until_ready", lambda run, on_look: view)
    wait_until_ready(run)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ready", "0", "of", "0", "workers"]
    assert lines[1] == "status page      http://n1:30000/"
    assert lines[2] == "export OPENAI_BASE_URL=http://n1:30000/v1"
    assert lines[3].startswith("export OPENAI_API_KEY=$(cat ") and len(lines) == 4


def test_a_certificate_of_its_own_is_among_what_a_shell_needs(capsys, run, monkeypatch):
    run.write_spec(parse_spec("name='wide'\n[model]\npath='m'\n[[pool]]\n[router]\ntls='self_signed'"))
    view = DeploymentView(name="wide", state="ready", endpoint="https://n1:30000/v1", router_answers=True)
    monkeypatch.setattr("slurminfer.jobs.serve.status.views.until_ready", lambda run, on_look: view)
    wait_until_ready(run)
    assert capsys.readouterr().out.splitlines()[-1] == f"export SSL_CERT_FILE={run.path}/router-ca.crt"


def test_a_deployment_whose_pool_has_given_up_has_failed_and_says_why(run, monkeypatch, capsys):
    monkeypatch.setattr("slurminfer.jobs.serve.status.status._ask_router", lambda *_: {})
    jobs = (JobRecord(id=process_id.process_id(os.getpid()), role="router"),)
    record = run.read_deployment()
    assert record is not None
    run.claims.update(msgspec.structs.replace(record, jobs=jobs))
    ended = EndedWorker(id="cpu-4", pool="cpu", job="9", at=60.0, submitted_at=0.0, cause="no such file: model.bin")
    pool = PoolRecord(wanted=2, ended=(ended,), waits="5 workers in a row have ended", gave_up=True)
    run.write_fleet(FleetRecord(written_at=1.0, pools={"router": PoolRecord(wanted=1), "cpu": pool}))
    view = look(run)
    assert (view.state, view.reason) == ("failed", "5 workers in a row have ended")
    assert [(one.name, one.wanted, one.gave_up) for one in view.pools] == [("cpu", 2, True)]
    print_views([view], as_json=False)
    assert "cpu-4 ended at" in (said := capsys.readouterr().out) and "no such file: model.bin" in said


@pytest.mark.parametrize(
    ("pool", "state", "says"),
    [
        (PoolRecord(wanted=0, may_come=True), "asleep", "pool cpu: asleep; the next request starts a worker"),
        (
            PoolRecord(wanted=1, waits="the nodes are reserved", waits_until=0.0),
            "starting",
            f"pool cpu: waits: the nodes are reserved, until {time.strftime('%Y-%m-%d %H:%M', time.localtime(0))}",
        ),
        (PoolRecord(wanted=0), "starting", "pool cpu: no workers are wanted; 'slurminfer scale wide cpu auto'"),
    ],
)
def test_why_there_is_no_worker_is_shown_with_what_the_controller_did_last(run, monkeypatch, capsys, pool, state, says):
    monkeypatch.setattr("slurminfer.jobs.serve.status.status._ask_router", lambda *_: {})
    record = run.read_deployment()
    assert record is not None
    jobs = (JobRecord(id=process_id.process_id(os.getpid()), role="router"),)
    run.claims.update(msgspec.structs.replace(record, jobs=jobs))
    decisions = tuple(DecisionRecord(at=float(at), text=f"decision {at}") for at in range(5))
    pools = {"router": PoolRecord(wanted=1), "cpu": pool}
    run.write_fleet(FleetRecord(written_at=time.time(), pools=pools, decisions=decisions, trouble="Slurm is silent"))
    view = look(run)
    assert view.state == state and len(view.decisions) == 5
    print_views([view], as_json=False)
    said = capsys.readouterr().out
    assert says in said and "Slurm is silent" in said
    assert "decision 4" in said and "decision 2" in said and "decision 1" not in said


def test_waiting_ends_at_a_deployment_that_sleeps(run, monkeypatch, capsys):
    view = DeploymentView(name="wide", state="asleep", endpoint="http://n1:30000/v1", router_answers=True)
    monkeypatch.setattr("slurminfer.jobs.serve.status.status.look", lambda *_: view)
    wait_until_ready(run)
    assert capsys.readouterr().out.splitlines()[0].split() == ["asleep", "0", "of", "0", "workers"]


@pytest.mark.parametrize(("age_s", "state"), [(0.0, "starting"), (3600.0, "failed")])
def test_while_a_controller_replaces_its_last_worker_a_deployment_has_not_failed(on_slurm, monkeypatch, age_s, state):
    on_slurm.write_fleet(FleetRecord(written_at=time.time() - age_s, pools={"cpu": PoolRecord(wanted=1)}))
    slurm(monkeypatch, (RUNNING, JobStatus(id="2", phase=JobPhase.FAILED, state="FAILED", reason="NonZeroExitCode")))
    assert look(on_slurm).state == state


def slurm(monkeypatch, *looks: tuple[JobStatus, JobStatus]) -> None:
    """Let Slurm say this of the router and of the worker at each look; the last one again and again."""
    left = list(looks)

    def observe(ids):
        router, worker = left.pop(0) if len(left) > 1 else left[0]
        return {id: router if id == ROUTER_JOB else worker for id in ids}

    found = SimpleNamespace(observe=observe)
    monkeypatch.setattr("slurminfer.jobs.serve.status.status.launcher_named", lambda name: found)


ROUTER_JOB = "1"


@pytest.fixture
def on_slurm(run, monkeypatch) -> RunDirectory:
    """The same under Slurm; its router's job is 1, its worker's 2. Slurm tells nothing more of how jobs end."""
    run.clear()
    jobs = (JobRecord(id=ROUTER_JOB, role="router"), JobRecord(id="2", role="cpu-0"))
    run.claims.take(DeploymentRecord(launcher="slurm", claimed_by="1 on n1", claimed_at=0.0, jobs=jobs))
    monkeypatch.setattr("slurminfer.jobs.serve.status.status.Endings", lambda: SimpleNamespace(complete=dict))
    monkeypatch.setattr("slurminfer.jobs.serve.status.status._LOOK_EVERY_S", 0)
    return run


def pending(id: str, reason: str, **changes) -> JobStatus:
    return parse_queue(f"{id}|PENDING||N/A|N/A|1:00:00|cpu|normal|{reason}\n")[id]


RUNNING = JobStatus(id=ROUTER_JOB, phase=JobPhase.RUNNING, state="RUNNING", node="n9", started_at=1000.0)


def test_a_requeued_job_shows_nothing_of_its_run_before(on_slurm, monkeypatch):
    write_worker(on_slurm, updated_at=900.0, load_s=3.0, ends_at=2000.0)
    slurm(monkeypatch, (RUNNING, pending("2", "BeginTime")))
    worker = look(on_slurm).workers[0]
    assert (worker.state, worker.node, worker.load_s, worker.seconds_left) == ("pending", "", None, None)
    slurm(monkeypatch, (RUNNING, msgspec.structs.replace(RUNNING, id="2")))
    worker = look(on_slurm).workers[0]
    assert (worker.state, worker.node, worker.load_s, worker.seconds_left) == ("starting", "n9", None, None)


def test_a_router_whose_job_waits_for_a_reservation_says_what_to_change(on_slurm, monkeypatch):
    waits = pending(ROUTER_JOB, "ReqNodeNotAvail, Reserved for maintenance")
    slurm(monkeypatch, (waits, pending("2", "Priority")))
    view = look(on_slurm)
    assert (view.state, view.advice.partition(";")[0]) == ("pending", "a `time` that ends before it")


def test_the_time_left_is_that_of_the_limit_which_slurm_has_now(on_slurm, monkeypatch):
    write_worker(on_slurm, updated_at=time.time(), ends_at=time.time() + 60)
    job = msgspec.structs.replace(RUNNING, id="2", ends_at=time.time() + 6000)
    slurm(monkeypatch, (RUNNING, job))
    left = look(on_slurm).workers[0].seconds_left
    assert left is not None and left > 3000


def test_the_record_of_the_present_run_counts(on_slurm, monkeypatch):
    write_worker(on_slurm, updated_at=time.time(), load_s=3.0)
    slurm(monkeypatch, (RUNNING, msgspec.structs.replace(RUNNING, id="2")))
    assert (look(on_slurm).workers[0].state, look(on_slurm).workers[0].load_s) == ("ready", 3.0)


def test_how_much_of_loading_was_staging_is_shown(on_slurm, monkeypatch, capsys):
    write_worker(on_slurm, updated_at=time.time(), load_s=30.0, stage_s=12.5)
    slurm(monkeypatch, (RUNNING, msgspec.structs.replace(RUNNING, id="2")))
    assert look(on_slurm).workers[0].stage_s == 12.5
    print_views([look(on_slurm)], as_json=False)
    assert "30.0 s (12.5 s staging)" in capsys.readouterr().out


def write_worker(run: RunDirectory, **changes: Any) -> None:
    values: dict[str, Any] = {"state": WorkerState.READY, "updated_at": 0.0} | changes
    run.write_worker(
        WorkerRecord(id="cpu-0", pool="cpu", engine="native", model="x", host="n1", job="2", epoch=0, pid=1, **values)
    )


@pytest.mark.parametrize(
    ("router", "worker", "says"),
    [
        (RUNNING, pending("2", "PartitionTimeLimit"), r"cpu-0: PartitionTimeLimit.* What to change: a shorter `time`"),
        (RUNNING, pending("2", "InvalidQOS"), r"worker cpu-0: InvalidQOS.*another slurm = {qos"),
        (RUNNING, pending("2", "JobHeldUser"), r"scontrol release"),
        (RUNNING, pending("2", "AssocMaxWallDurationPerJobLimit"), r"a shorter `time`"),
        (pending("1", "PartitionTimeLimit"), pending("2", "Priority"), r"the router's job: PartitionTimeLimit"),
    ],
)  # fmt: skip
def test_waiting_fails_at_once_where_slurm_says_that_it_never_ends(on_slurm, monkeypatch, router, worker, says):
    slurm(monkeypatch, (router, worker))
    with pytest.raises(EngineError, match=says):
        until_ready(on_slurm, lambda view: None)


def test_a_stop_while_waiting_is_told_as_such_and_not_as_a_failure(on_slurm, monkeypatch):
    slurm(monkeypatch, (RUNNING, pending("2", "Priority")))

    def stop(view):
        run = RunDirectory(on_slurm.path)
        record = run.read_deployment()
        assert record is not None
        run.claims.announce_stop(record)
        cancelled = JobStatus(id="1", phase=JobPhase.FAILED, state="CANCELLED")
        slurm(monkeypatch, (cancelled, msgspec.structs.replace(cancelled, id="2")))

    with pytest.raises(RunStoppedError, match=r"^deployment 'wide' was stopped$"):
        until_ready(on_slurm, stop)
    on_slurm.clear()
    with pytest.raises(RunStoppedError, match=r"^deployment 'wide' was stopped$"):
        until_ready(on_slurm, lambda view: None)
    with pytest.raises(EngineError, match=r"^deployment 'wide' was stopped; .slurminfer serve. starts it$"):
        require_not_failed(look(on_slurm))


def test_waiting_says_why_as_soon_as_slurm_does_and_only_what_is_new(on_slurm, monkeypatch, capsys):
    looks = [(RUNNING, pending("2", word)) for word in ("Priority", "Priority", "Resources", "PartitionTimeLimit")]
    slurm(monkeypatch, *looks)
    with pytest.raises(EngineError, match="PartitionTimeLimit"):
        wait_until_ready(on_slurm)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cpu-0: ")]
    assert [line.split(": ")[2].split(";")[0] for line in said] == ["Priority", "Resources", "PartitionTimeLimit"]
    assert said[-1].endswith("""'sinfo -o "%P %l"' shows the limits"""), "a command is not broken at the 80th column"


def test_a_worker_that_has_ended_has_a_cause_and_an_advice(on_slurm, monkeypatch, capsys):
    logs = on_slurm.logs_of("cpu-0")
    logs.mkdir(parents=True)
    (logs / "engine.0.0.log").write_text(
        "RuntimeError: The NVIDIA driver on your system is too old\n"
    )  # of a run before
    (logs / "engine.1.1.log").write_text("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n")
    (logs / "engine.1.0.log").write_text("RuntimeError: NCCL error: unhandled system error\n")
    failed = JobStatus(id="2", phase=JobPhase.FAILED, state="FAILED", reason="NonZeroExitCode")
    slurm(monkeypatch, (RUNNING, failed))
    view = look(on_slurm)
    assert view.workers[0].cause == "the GPU's memory is full"
    assert "tensor_parallel" in view.workers[0].advice
    assert (view.state, view.cause, view.advice) == ("failed", view.workers[0].cause, view.workers[0].advice)
    print_views([view], as_json=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "the GPU's memory is full: " in text and "what to change: smaller `context_length`" in text
    assert "it answers no requests any more; 'slurminfer stop wide' ends what still runs" in text


def test_the_log_of_a_failed_router_is_explained(on_slurm, monkeypatch):
    on_slurm.logs_of("router").mkdir(parents=True)
    (on_slurm.logs_of("router") / "1_0_log.out").write_text(
        "error: cannot listen on n1:30000: Address already in use\n"
    )
    failed = JobStatus(id="1", phase=JobPhase.FAILED, state="FAILED", reason="NonZeroExitCode")
    slurm(monkeypatch, (failed, pending("2", "Priority")))
    view = look(on_slurm)
    assert view.state == "failed" and "has the port" in view.cause and "port = 0" in view.advice


def test_a_remark_of_a_worker_is_shown_while_it_works(on_slurm, monkeypatch, capsys):
    write_worker(on_slurm, updated_at=time.time(), remark="setup: exit status 1 of: module load cuda")
    slurm(monkeypatch, (RUNNING, msgspec.structs.replace(RUNNING, id="2")))
    print_views([look(on_slurm)], as_json=False)
    assert "cpu-0: setup: exit status 1 of: module load cuda" in capsys.readouterr().out


def test_an_agent_that_was_killed_left_no_reason(run):
    assert look(run).workers[0].cause.startswith("its agent was killed")


def test_without_slurm_a_keeper_that_was_killed_is_said_and_what_to_do(run):
    run.logs_of("router").mkdir(parents=True)
    (run.logs_of("router") / "process.log").write_text("router: listening on http://127.0.0.1:30000\n")
    view = look(run)
    assert view.state == "failed"
    assert view.reason.startswith("the process that keeps router and controller has ended")
    assert "'slurminfer stop wide', then serve again" in view.advice
