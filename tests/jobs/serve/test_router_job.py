"""What becomes of the router's job when its processes are killed, told to end, or cannot serve."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from functools import partial

import httpx
import psutil
import pytest

from slurminfer.core import files
from slurminfer.core.processes import process_id
from slurminfer.core.records import DeploymentRecord
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec

from ...support.waiting import eventually, has_ended

pytestmark = pytest.mark.process

SPEC = """
name = "kept"
[model]
path = "/models/m"
[[pool]]
name = "cpu"
[router]
port = {port}
"""
REQUEUED = 85
UNDER_SUBMITIT = f"""
import signal, sys
from pathlib import Path
from slurminfer.core.rundir import RunDirectory
from slurminfer.jobs.serve.router_job import run_router_job
signal.signal(signal.SIGUSR2, lambda number, frame: sys.exit({REQUEUED}))
run_router_job(RunDirectory(Path(sys.argv[1])), lambda: TAKEN)
"""


def has_url(run: RunDirectory) -> bool:
    record = run.read_router()
    return record is not None and record.url is not None


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts the router's job, and ends what is left of it."""
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    monkeypatch.setenv("SLURMINFER_LOCAL", "1")
    run = RunDirectory.named("kept")
    run.create()
    started = []

    def start(port: int = 0, program: str = "", record: DeploymentRecord | None = None):
        run.write_spec(parse_spec(SPEC.format(port=port)))
        if record is not None:
            run.claims.take(record)
        argv = [sys.executable, *(("-c", program) if program else ("-m", "slurminfer.jobs.serve")), str(run.path)]
        process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        started.append(process)
        eventually(lambda: has_url(run) or process.poll() is not None, "the router serves or has ended")
        return run, process

    yield start
    for process in started:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.communicate()
        for child in children:
            eventually(partial(has_ended, child.pid), "nothing outlives the job's process")


def test_a_router_that_is_killed_is_back_and_belongs_to_the_same_job(start):
    run, process = start()
    before = run.read_router()
    assert before.job == str(process.pid) and before.pid != process.pid
    os.kill(before.pid, signal.SIGKILL)
    after = eventually(lambda: (found := run.read_router()) and found.started_at != before.started_at and found)
    assert after.job == before.job
    assert httpx.get(f"{after.url}/health").status_code == 503
    process.terminate()
    assert process.wait(30) == 0 and run.read_router() is None


def test_a_controller_that_is_told_to_end_is_back(start):
    run, process = start(record=DeploymentRecord(launcher="local", claimed_by="1 on n1", claimed_at=0.0))
    before = eventually(lambda: files.read_json(run.lease_path))
    os.kill(process_id.pid_of(before["process"]), signal.SIGTERM)
    eventually(lambda: (found := files.read_json(run.lease_path)) and found["holder"] != before["holder"])
    process.terminate()
    assert process.wait(30) == 0


def test_a_port_that_is_taken_ends_the_job_with_the_reason(start):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        _, process = start(port=taken.getsockname()[1])
        assert process.wait(30) == 1
        assert "error: cannot listen" in process.stderr.read()


@pytest.mark.parametrize(
    ("numbers", "taken", "code"),
    [
        ([signal.SIGUSR2], False, REQUEUED),
        ([signal.SIGTERM], False, 0),
        ([signal.SIGTERM], True, REQUEUED),
        ([signal.SIGUSR2, signal.SIGTERM], False, 0),
    ],
)
def test_at_its_limit_or_taken_away_the_job_goes_back_to_the_queue_and_cancelled_it_does_not(
    start, numbers, taken, code
):
    _, process = start(program=UNDER_SUBMITIT.replace("TAKEN", str(taken)))
    for number in numbers:
        process.send_signal(number)
    assert process.wait(60) == code
