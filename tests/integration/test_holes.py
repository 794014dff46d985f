"""A batch in the holes of a real Slurm's schedule, as an ordinary user."""

import json
import subprocess
import threading
from pathlib import Path

import pytest

from slurminfer.slurm.sandbox import Sandbox

from ..support.waiting import eventually
from .conftest import HOUSE
from .deployments import answered

pytestmark = [pytest.mark.slurm, pytest.mark.network, pytest.mark.timeout(600)]
SPEC = """
name = "holes"
[model]
path = "demo"
[[pool]]
name = "w"
backfill = true
max_workers = 2
time_min = "8"
time = "04:00:00"
max_running_requests = 4
mem = "4G"
[router]
port = 0
time = "20"
"""
PROMPTS = HOUSE / "examples/data/prompts-100.jsonl"
COUNT = 50  # of them


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def ask(sandbox: Sandbox, *argv: str) -> str:
    """What one of Slurm's commands says to root, with times in Unix seconds."""
    env = {**sandbox.env(), "SLURM_TIME_FORMAT": "%s"}
    return subprocess.check_output(argv, encoding="utf-8", env=env).strip()


@pytest.fixture
def hole(sandbox):
    """Half of the nodes are used for half an hour; a job that waits wants all of them then. By its start, Unix time."""
    asked = ["sbatch", "--parsable", "--chdir=/", "--output=/dev/null", "--exclusive", "--wrap=sleep 3600"]
    runs = ask(sandbox, *asked, "--nodes=2", "--time=30")
    wants = ask(sandbox, *asked, "--nodes=4", "--time=5")

    def planned() -> str:
        said = ask(sandbox, "squeue", "--noheader", f"--jobs={wants}", "--states=PENDING", "--format=%S")
        return said if said.isdecimal() else ""

    yield float(eventually(planned, "the job that wants all nodes has a start"))
    ask(sandbox, "scancel", runs, wants)


def test_a_batch_runs_in_a_hole_that_no_job_of_it_outlasts(cluster_user, sandbox, ordinary_user, shared, hole):
    user, spec, source = cluster_user, shared / "holes.toml", shared / "in.jsonl"
    spec.write_text(SPEC)
    source.write_text("".join(f"{line}\n" for line in lines(PROMPTS)[:COUNT]), encoding="utf-8")
    user.ok("serve", spec, "--wait")
    assert user.status("holes")["state"] == "asleep"
    done: list[subprocess.CompletedProcess[str]] = []
    words = ("batch", source, shared / "out.jsonl", "--run", "holes", "--max-tokens", "12")
    work = threading.Thread(target=lambda: done.append(user.slurminfer(*words, timeout_s=400)))
    work.start()
    try:
        eventually(lambda: answered(shared / "out.jsonl") >= 5, timeout_s=200)
    except AssertionError as error:
        raise AssertionError(user.ok("status", "holes")) from error
    first = next(worker for worker in user.status("holes")["workers"] if worker["state"] == "ready")
    ends_at = ask(sandbox, "squeue", "--noheader", f"--jobs={first['job']}", "--format=%e")
    assert float(ends_at) <= hole, "it does not keep the job that waits from its nodes"
    ask(sandbox, "scancel", first["job"])
    work.join()
    assert done[0].returncode == 0, done[0].stderr
    ids = [json.loads(line)["id"] for line in lines(shared / "out.jsonl")]
    assert sorted(ids) == sorted(json.loads(line)["id"] for line in lines(source))
    assert "pool w: predicted" in done[0].stdout and "node-hours" in done[0].stdout, done[0].stdout
    (pool,) = user.status("holes")["pools"]
    assert first["id"] in [one["id"] for one in pool["ended"]]
    assert pool["harvest"]["jobs"] >= 2 and pool["harvest"]["achieved_hours"] > 0
    assert "pool w: predicted" in user.ok("receipt", "holes")
