"""Submitting to the sandbox as an ordinary user, and looking at the jobs from the tests."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slurminfer.core.job import JobPhase, JobStatus
from slurminfer.slurm.observe import observe
from slurminfer.slurm.sandbox import Sandbox

SUBMIT = """
import functools, json, subprocess, sys
from pathlib import Path
from slurminfer.core.job import JobRequest
from slurminfer.slurm.submit import SlurmLauncher

fields = json.loads(sys.argv[1])
entry = functools.partial(subprocess.check_call, fields.pop("command"))
folder = Path(fields.pop("log_folder"))
request = JobRequest(name="test", role="test", entry=entry, log_folder=folder, time_s=600, **fields)
print(SlurmLauncher().submit(request))
"""


def submit_argv(command: list[str], log_folder: Path, **fields: Any) -> list[str]:
    """A command that submits a job which runs `command`, and prints its id."""
    request = {"command": command, "log_folder": str(log_folder), **fields}
    return [sys.executable, "-c", SUBMIT, json.dumps(request)]


@pytest.fixture
def submit(sandbox: Sandbox, ordinary_user: str) -> Callable[..., str]:
    """Submit a job as the ordinary user; its id."""

    def submit(command: list[str], log_folder: Path, **fields: Any) -> str:
        done = sandbox.run_as(ordinary_user, submit_argv(command, log_folder, **fields))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return submit


@pytest.fixture(autouse=True)
def use_sandbox(request: pytest.FixtureRequest) -> None:
    """Let the tests marked `slurm` ask the sandbox's Slurm."""
    if request.node.get_closest_marker("slurm"):
        request.getfixturevalue("in_sandbox")


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """A folder that is all of PATH, and a way to put commands there that answer like Slurm's."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name: str, script: str) -> Path:
        path: Path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    return put


def wait_for(job: str, wanted: JobPhase, timeout_s: float = 60.0) -> JobStatus:
    """The job's status as soon as it is in that phase."""
    deadline = time.monotonic() + timeout_s
    while (status := observe([job])[job]).phase is not wanted:
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
    return status
