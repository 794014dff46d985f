"""Why a job has ended, out of what it has written."""

import os

import pytest

from slurminfer.core.job import JobPhase, JobStatus
from slurminfer.core.records import JobRecord
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.serve.status.causes import why

NO_ENVIRONMENT = """\
Traceback (most recent call last):
  File "submitit/core/_submit.py", line 11, in <module>
RuntimeError: Could not figure out which environment the job is runnning in.
srun: error: n1: task 0: Exited with exit code 1
"""
REQUEUED = """\
submitit INFO (2026-11-28 19:30:37,002) - Starting with JobEnvironment(job_id=7, hostname=n1)
slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-28T19:31:00 DUE TO PREEMPTION ***
submitit INFO (2026-11-28 19:40:37,002) - Starting with JobEnvironment(job_id=7, hostname=n2)
submitit ERROR (2026-11-28 19:41:00,000) - Submitted job triggered an exception
slurminfer.core.errors.EngineError: engine exited with 1: ValueError: head_dim
"""


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    directory = RunDirectory(tmp_path)
    directory.write_spec(parse_spec("name = 'demo'\n[model]\npath = 'x'\n[[pool]]\nname = 'cpu'"))
    directory.logs_of("cpu-0").mkdir(parents=True)
    return directory


def said(run: RunDirectory, reason: str = "NonZeroExitCode", role: str = "cpu-0") -> str:
    status = JobStatus(id="7", phase=JobPhase.FAILED, state="FAILED", reason=reason)
    return why(run, JobRecord(id="7", role=role), status)


def write(run: RunDirectory, name: str, text: str, age_s: int = 0) -> None:
    path = run.logs_of("cpu-0") / name
    path.write_text(text)
    os.utime(path, (1e9 - age_s, 1e9 - age_s))


def test_the_log_of_the_task_counts_where_the_job_never_got_further(run):
    write(run, "7_0_log.out", NO_ENVIRONMENT)
    assert said(run) == "RuntimeError: Could not figure out which environment the job is runnning in."


def test_of_a_requeued_job_the_last_run_counts(run):
    write(run, "7_0_log.out", REQUEUED)
    assert said(run) == "slurminfer.core.errors.EngineError: engine exited with 1: ValueError: head_dim"


def test_a_complaint_is_worth_more_than_the_last_line_of_a_newer_log(run):
    write(run, "7_0_log.out", "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0", age_s=5)
    write(run, "engine.0.0.log", "INFO listening on port 1\n")
    assert said(run, "OutOfMemory") == "OutOfMemory: slurmstepd: error: Detected 1 oom_kill event in StepId=7.0"


def test_the_schedulers_word_stays_where_the_logs_know_nothing(run):
    assert said(run) == "NonZeroExitCode"
    write(run, "7_0_log.out", "starting\n")
    assert said(run) == "NonZeroExitCode: starting"


ROUTER_SAYS = """\
submitit INFO (2026-11-28 19:30:36,002) - Starting with JobEnvironment(job_id=7, hostname=n1)
2026-11-28 19:30:37,002 INFO slurminfer.router.fleet.attendant: worker cpu-1 is unhealthy: /health fails: cannot connect
2026-11-28 19:30:38,002 WARNING relay 9 slurminfer.router.relay.outcome: worker cpu-1: the connection failed
error: spec: router.tls_certificate = '/c.pem': cannot be read
"""


@pytest.mark.parametrize("name", ["7_0_log.out", "process.log"])
def test_what_the_router_reports_of_workers_is_not_why_it_has_ended(run, name):
    run.logs_of("router").mkdir(parents=True)
    (run.logs_of("router") / name).write_text(ROUTER_SAYS)
    assert said(run, role="router") == "error: spec: router.tls_certificate = '/c.pem': cannot be read"


def test_what_earlier_routers_said_does_not_count(run):
    run.logs_of("router").mkdir(parents=True)
    for name in ("6_0_log.out", "process.1.log"):
        (run.logs_of("router") / name).write_text("OSError: of an earlier deployment\n")
    assert said(run, role="router") == "NonZeroExitCode"


def test_what_is_no_log_is_passed_over(run):
    os.mkfifo(run.logs_of("cpu-0") / "engine.0.0.log")
    (run.logs_of("cpu-0") / "gone.log").symlink_to("nothing")
    (run.logs_of("cpu-0") / "folder.log").mkdir()
    assert said(run) == "NonZeroExitCode"


def test_a_role_that_the_spec_does_not_have_is_no_error(run):
    assert said(run, role="gpu-3") == "NonZeroExitCode"
    run.spec_path.write_text("name = ")
    write(run, "process.log", "OSError: no\n")
    assert said(run) == "OSError: no"
