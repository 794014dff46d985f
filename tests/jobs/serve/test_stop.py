"""Serving and stopping where other processes, the disk or the records are against it."""

import os
import socket
import subprocess
import sys

import msgspec
import pytest

from slurminfer.core.errors import RouterError, RunActiveError, RunDirectoryError, RunStoppedError, SpecError
from slurminfer.core.job import JobPhase, JobStatus
from slurminfer.core.processes import process_id
from slurminfer.core.records import DeploymentRecord, IntendedJob, JobRecord
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.launch.local import LocalLauncher
from slurminfer.jobs.serve import damaged, deployment
from slurminfer.jobs.serve.deployment import start, stop, submit
from slurminfer.jobs.serve.requests import dry_run, worker_request
from slurminfer.jobs.serve.status.status import look
from slurminfer.router.control import listeners

from ...support.launchers import FakeLauncher, JobTable

SPEC = parse_spec("name = 'demo'\n[model]\npath = 'x'\n[[pool]]\nname = 'cpu'\nworkers = 2")
HERE = socket.gethostname()
DEAD = f"999999@1-{process_id.boot()} on {HERE}"
LIVING = f"{process_id.process_id(os.getpid())} on {HERE}"


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDirectory:
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    directory = RunDirectory.named("demo")
    directory.create()
    directory.write_spec(SPEC)
    return directory


@pytest.fixture
def launcher(monkeypatch) -> FakeLauncher:
    """What every deployment of this test runs under."""
    fake = FakeLauncher(JobPhase.DONE)
    for module in ("deployment", "claim_holder", "status.status"):
        monkeypatch.setattr(f"slurminfer.jobs.serve.{module}.launcher_named", lambda name: fake)
    return fake


def claimed_by(who: str, *jobs: JobRecord, launcher: str = "slurm") -> DeploymentRecord:
    return DeploymentRecord(launcher=launcher, claimed_by=who, claimed_at=1.0, jobs=jobs)


def test_a_stop_before_the_first_job_ends_the_serve(run, launcher, monkeypatch):
    write_spec = RunDirectory.write_spec

    def stopped_meanwhile(self, spec):
        write_spec(self, spec)
        assert stop(run) == 0

    monkeypatch.setattr(RunDirectory, "write_spec", stopped_meanwhile)
    with pytest.raises(RunStoppedError, match="'demo' was stopped while its jobs were being submitted"):
        submit(SPEC, launcher)
    assert launcher.submitted == []
    assert look(run).state == "stopped"


def test_a_stop_between_two_jobs_ends_all_of_them(run, launcher, monkeypatch):
    submit_job = launcher.submit

    def stopped_meanwhile(request):
        job = submit_job(request)
        if request.role == "cpu-0":
            assert stop(run) == 1  # the router; what is being submitted it cannot know
        return job

    monkeypatch.setattr(launcher, "submit", stopped_meanwhile)
    with pytest.raises(RunStoppedError):
        submit(SPEC, launcher)
    assert [request.role for request in launcher.submitted] == ["router", "cpu-0"]
    assert set(launcher.cancelled) == {"1", "2"}
    assert look(run).state == "stopped"


def test_a_full_disk_while_jobs_are_submitted_leaves_none_of_them(run, launcher, monkeypatch):
    def full(self, record):
        raise RunDirectoryError("cannot write deployment.json: No space left on device")

    monkeypatch.setattr("slurminfer.core.claims.Claims.update", full)
    with pytest.raises(RunDirectoryError, match="No space left"):
        submit(SPEC, launcher)
    assert launcher.cancelled == ["1"]
    assert look(run).state == "stopped"


def test_the_claim_of_a_dead_serve_is_taken_over_with_the_records_removed(run, launcher):
    run.claims.take(claimed_by(DEAD))
    (run.workers_path / "cpu-7.json").write_text("garbage")
    submit(SPEC, launcher)
    assert len(launcher.submitted) == 3
    assert not (run.workers_path / "cpu-7.json").exists()


def test_the_claim_of_a_living_serve_is_not(run, launcher):
    run.claims.take(claimed_by(LIVING))
    with pytest.raises(RunActiveError, match=rf"by process {os.getpid()} on .*, and not stopped; 'slurminfer stop"):
        submit(SPEC, launcher)


def test_a_serve_that_died_before_its_first_job_is_said(run, launcher):
    run.claims.take(claimed_by(DEAD))
    view = look(run)
    assert view.state == "failed"
    assert "999999" in view.reason and "before it had submitted a job" in view.reason
    assert stop(run) == 0
    assert stop(run) is None


def test_a_serve_that_still_submits_is_said(run, launcher):
    run.claims.take(claimed_by(LIVING))
    assert look(run).reason == "serve is still submitting"


@pytest.mark.parametrize("damage", ['{"version": 1, "laun', "null", "[]", "[" * 100_000, "\udcff"], ids=range(5))
def test_a_damaged_record_is_one_deployments_trouble_and_has_a_way_out(run, launcher, damage):
    run.deployment_path.write_text(damage, errors="surrogateescape")
    view = look(run)
    assert view.state == "damaged"
    assert "deployment.json" in view.reason and "slurminfer stop demo --force" in view.reason
    for wrong in (lambda: stop(run), lambda: submit(SPEC, launcher)):
        with pytest.raises(RunDirectoryError, match="slurminfer stop demo --force"):
            wrong()
    (run.logs_of("cpu-0")).mkdir(parents=True)
    (run.logs_of("cpu-0") / "41_submission.sh").touch()
    assert stop(run, force=True) == 1
    assert launcher.cancelled == ["41"]
    assert look(run).state == "stopped"


@pytest.mark.parametrize(("launcher_name", "job"), [("slumr", "7"), ("local", "soon")])
def test_a_record_that_cannot_be_meant_has_one_too(run, launcher_name, job):
    run.claims.take(claimed_by(DEAD, JobRecord(id=job, role="router"), launcher=launcher_name))
    assert look(run).state == "damaged"
    with pytest.raises(RunDirectoryError, match="--force"):
        stop(run)
    assert stop(run, force=True) == 0


def test_local_processes_are_found_by_their_command_line(run):
    program = "import time; time.sleep(60)"
    with (
        subprocess.Popen([sys.executable, "-c", program, "slurminfer.router", str(run.path)]) as router,
        subprocess.Popen([sys.executable, "-c", program, "slurminfer.router", f"{run.path}-2"]) as other,
    ):
        found = damaged.find_jobs(run)
        router.kill()
        other.kill()
    assert [process_id.pid_of(job.id) for job in found["local"]] == [router.pid]


def test_processes_of_another_machine_are_not_forgotten(run):
    job = JobRecord(id="7@1-ffffffff", role="router")
    run.claims.take(claimed_by("6@1-ffffffff on elsewhere", job, launcher="local"))
    assert look(run).state == "unknown"
    with pytest.raises(RunDirectoryError, match="are on elsewhere: stop it there"):
        stop(run)
    with pytest.raises(RunActiveError):
        submit(SPEC, LocalLauncher())
    assert run.read_deployment() is not None


def test_what_cannot_run_is_refused_before_a_model_is_found(run, monkeypatch):
    monkeypatch.setattr(deployment, "with_models_found", lambda *_: pytest.fail("nothing may be fetched"))
    wide = parse_spec("name = 'wide'\n[model]\npath = 'x'\n[[pool]]\nnodes = 2\ntensor_parallel = 2")
    with pytest.raises(SpecError, match=r"nodes = 2: .*needs Slurm"):
        start(wide, LocalLauncher())


class Renderer(LocalLauncher):
    """Notes what it has rendered."""

    def __init__(self) -> None:
        self.rendered: list[str] = []

    def render(self, request):
        self.rendered.append(request.role)
        return "x\n"


def test_a_dry_run_of_many_workers_begins_at_once(run):
    many = parse_spec("name = 'many'\n[model]\npath = 'x'\n[[pool]]\nworkers = 10000")
    launcher = Renderer()
    assert next(dry_run(many, launcher)) == "# ---- router ----\nx\n"
    assert launcher.rendered == ["router"]


def test_a_job_that_comes_back_to_the_queue_is_cancelled_there(run, launcher, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    run.claims.take(claimed_by(DEAD, JobRecord(role="cpu-0", id="7")))
    launcher.looks = [JobPhase.RUNNING, JobPhase.PENDING, JobPhase.DONE]
    assert stop(run) == 1
    assert launcher.cancelled == ["7", "7"]


def test_a_port_that_is_taken_on_this_machine_submits_nothing_and_gives_the_name_back(run, launcher, monkeypatch):
    monkeypatch.setattr(listeners, "_ATTEMPTS", 1)
    launcher.name = LocalLauncher.name
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        spec = parse_spec(f"name = 'demo'\n[model]\npath = 'x'\n[[pool]]\n[router]\nport = {port}")
        with pytest.raises(RouterError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            submit(spec, launcher)
        assert launcher.submitted == [] and look(run).state == "stopped"
        launcher.name = "slurm"  # nobody knows yet on which node the router will run
        submit(spec, launcher)
    assert len(launcher.submitted) == 2


def test_a_job_that_a_killed_controller_could_not_note_is_ended_too(run, monkeypatch):
    table = JobTable()
    for module in ("deployment", "claim_holder", "status.status"):
        monkeypatch.setattr(f"slurminfer.jobs.serve.{module}.launcher_named", lambda name: table)
    record = claimed_by(DEAD, JobRecord(id="1", role="router"))
    intended = {"cpu-2": IntendedJob(at=1.0, slot=1), "cpu-3": IntendedJob(at=1.0)}
    run.claims.take(msgspec.structs.replace(record, intended=intended))
    table.requests["1"] = None
    table.submit(worker_request(SPEC, run, "cpu-2", slot=1))
    cancelled: list[str] = []

    def cancel(ids):
        cancelled.extend(ids)
        for job in ids:
            table.set(job, JobPhase.FAILED, "CANCELLED")

    monkeypatch.setattr(table, "cancel", cancel)
    assert stop(run) == 2 and sorted(cancelled) == ["1", "2"]


def test_it_is_found_although_the_spec_is_damaged(run, launcher, monkeypatch):
    run.claims.take(msgspec.structs.replace(claimed_by(DEAD), intended={"cpu-2": IntendedJob(at=1.0, slot=1)}))
    sought = worker_request(SPEC, run, "cpu-2", slot=1)
    run.spec_path.write_text("name = ")
    fields = ("name", "entry", "log_folder")

    def find(request):
        assert [getattr(request, field) for field in fields] == [getattr(sought, field) for field in fields]
        return ["2"]

    monkeypatch.setattr(launcher, "find", find)
    assert stop(run) == 1 and launcher.cancelled == ["2"]
    assert look(run).state == "stopped"


@pytest.mark.parametrize("force", [False, True])
def test_a_job_to_which_slurm_has_given_the_number_of_one_of_ours_is_left_alone(run, launcher, monkeypatch, force):
    ours = JobRecord(id="8", name="demo-cpu-1", role="cpu-1")
    if force:
        run.deployment_path.write_text("damaged")
        for role, job in (("cpu-0", "7"), ("cpu-1", "8")):
            run.logs_of(role).mkdir(parents=True)
            (run.logs_of(role) / f"{job}_submission.sh").touch()
    else:
        run.claims.take(claimed_by(DEAD, JobRecord(id="7", name="demo-cpu-0", role="cpu-0"), ours))
    names = {"7": "my|own\tjob", "8": "demo-cpu-1"}
    cancelled: list[str] = []

    def observe(ids):
        phase = {job: JobPhase.DONE if job in cancelled else JobPhase.RUNNING for job in ids}
        return {job: JobStatus(id=job, phase=phase[job], state="RUNNING", name=names[job]) for job in ids}

    monkeypatch.setattr(launcher, "observe", observe)
    monkeypatch.setattr(launcher, "cancel", cancelled.extend)
    assert stop(run, force=force) == 1
    assert cancelled == ["8"]
