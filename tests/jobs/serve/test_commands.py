"""`status`, `logs` and `stop` on a terminal, as whole programs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slurminfer.core.records import DeploymentRecord, JobRecord
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec

pytestmark = pytest.mark.process

POSIX = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Two deployments: one whose worker has ended with escapes in its log, one whose record is torn."""
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    for name in ("ended", "torn"):
        run = RunDirectory.named(name)
        run.create()
        run.write_spec(parse_spec(f"name = '{name}'\n[model]\npath = 'x'\n[[pool]]\nname = 'cpu'"))
        jobs = tuple(JobRecord(id="999999@1.00", role=role) for role in ("router", "cpu-0"))
        run.claims.take(DeploymentRecord(launcher="local", claimed_by="1 on n1", claimed_at=0.0, jobs=jobs))
    run.deployment_path.write_text('{"jobs": [')
    logs = RunDirectory.named("ended").logs_of("cpu-0")
    logs.mkdir(parents=True)
    (logs / "process.log").write_bytes(
        "ValueError: \x1b]0;owned\x07 [bold]ü\udcff\n".encode("utf-8", "surrogateescape")
    )
    return tmp_path


def command(*words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "slurminfer", *words]
    return subprocess.run(argv, env={**os.environ, **env}, capture_output=True, encoding="utf-8", errors="replace")


def test_one_damaged_deployment_leaves_the_others_in_status(home):
    done = command("status")
    assert done.returncode == 0, done.stderr
    assert "ended  failed" in done.stdout
    assert "torn  damaged" in done.stdout
    assert "slurminfer stop torn --force" in done.stdout
    assert r"ValueError: \x1b]0;owned\x07 [bold]ü" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_locale_without_utf8_ends_no_command(home):
    for words in (("status",), ("logs", "ended")):
        done = command(*words, **POSIX)
        assert done.returncode == 0, done.stderr
        assert r"ValueError: \x1b]0;owned\x07 [bold]" in done.stdout


def test_stop_says_what_to_do_and_with_force_does_it(home):
    refused = command("stop", "torn")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "--force" in refused.stderr
    assert command("stop", "torn", "--force").stdout == "'torn' stopped: 0 jobs ended\n"
    assert command("stop", "torn").stdout == "'torn' was stopped already\n"
