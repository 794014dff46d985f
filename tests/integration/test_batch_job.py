"""A batch as jobs of a real Slurm: the driver, and workers of its own, as an ordinary user."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.fleet.cluster import Cluster
from slurminfer.slurm.sandbox import Sandbox

from ..support.waiting import eventually
from .deployments import answered

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
SPEC = """
name = "own"
[model]
path = "demo"
[[pool]]
name = "w"
workers = 2
max_running_requests = 4
mem = "4G"
time = "30"
[router]
port = 0
"""
ROWS = 80


def ask(sandbox: Sandbox, *argv: str) -> str:
    """What one of Slurm's commands says to root."""
    return subprocess.check_output(argv, encoding="utf-8", env=sandbox.env()).strip()


def jobs_of(sandbox: Sandbox, user: str) -> set[str]:
    """The names of the user's jobs that wait or run."""
    return set(ask(sandbox, "squeue", "--noheader", f"--user={user}", "--format=%j").split())


@pytest.fixture
def asked(shared: Path, sandbox: Sandbox, ordinary_user: str) -> tuple[Path, ...]:
    """Input, output and spec."""
    source, spec = shared / "in.jsonl", shared / "own.toml"
    rows = ({"number": number, "prompt": f"{number} and {number} is"} for number in range(ROWS))
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    spec.write_text(SPEC, encoding="utf-8")
    return source, shared / "out.jsonl", spec


@pytest.fixture
def cluster(cluster_user, sandbox: Sandbox, ordinary_user: str) -> Iterator[Cluster]:
    """How to break nodes; they are whole again afterwards."""
    cluster = Cluster(sandbox, cluster_user.home, ordinary_user)
    yield cluster
    cluster.restore_nodes()


@pytest.fixture
def busy(sandbox: Sandbox) -> Iterator[None]:
    """All nodes are in use, by jobs with a limit of three minutes."""
    sbatch = ["sbatch", "--parsable", "--chdir=/", "--output=/dev/null", "--exclusive", "--time=3", "--wrap=sleep 300"]
    jobs = [ask(sandbox, *sbatch) for _ in range(4)]
    states = ["squeue", "--noheader", f"--jobs={','.join(jobs)}", "--format=%T"]
    eventually(lambda: ask(sandbox, *states).split() == ["RUNNING"] * 4, "all nodes are in use")
    yield
    ask(sandbox, "scancel", *jobs)


def submitted(user, asked, *words: str) -> str:
    """The id of the driver's job."""
    source, output, spec = asked
    told = user.ok("batch", source, output, "--spec", spec, "--submit", "--max-tokens", "16", "--time", "20", *words)
    return told.split("Slurm job ")[1].split()[0].rstrip(";")


def status(user, output: Path) -> dict:
    return json.loads(user.ok("batch", "status", output, "--json"))


def test_each_row_is_done_once_though_the_driver_is_sent_back_to_the_queue_and_loses_its_node(
    cluster_user, sandbox, ordinary_user, asked, cluster
):
    user, (_, output, _) = cluster_user, asked
    job = submitted(user, asked)
    again = user.slurminfer("batch", asked[0], output, "--spec", asked[2], "--submit", "--max-tokens", "16")
    assert again.returncode == 1 and f"job {job} works on" in again.stderr
    eventually(lambda: answered(output) >= 8, "rows are answered", timeout_s=240)
    workers = {worker["job"] for worker in user.status("own")["workers"]}
    so_far = answered(output)
    ask(sandbox, "scontrol", "requeue", job)
    eventually(lambda: answered(output) >= so_far + 16, "the driver works again", timeout_s=240)
    columns = ["--noheader", "--parsable2", "--allocations", "--format=JobIDRaw,JobName,State"]
    ran = [line.split("|") for line in ask(sandbox, "sacct", *columns, f"--user={ordinary_user}").splitlines()]
    routers = [line for line in ran if line[1] == "own-router" and int(line[0]) > int(job)]
    assert len(routers) == 1 and len(workers) == 2, ("the deployment that was there was used again", routers)

    lost = cluster.node_of(job)
    cluster.lose_node(lost)
    eventually(lambda: status(user, output)["is_done"], "the batch is done", timeout_s=300)
    eventually(lambda: jobs_of(sandbox, ordinary_user) == set(), "all jobs have ended")
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["number"] for row in rows] == list(range(ROWS)), "each row once, in the order of the input"
    assert all(row["generated_text"] and row["error"] is None for row in rows)
    columns = ["--noheader", "--parsable2", "--allocations", "--duplicates", "--format=State,NodeList"]
    ran = [line.split("|") for line in ask(sandbox, "sacct", *columns, f"--jobs={job}").splitlines()]
    assert [state for state, _ in ran] == ["REQUEUED", "NODE_FAIL", "COMPLETED"], ran
    assert ran[1][1] == lost != ran[2][1], ran


def test_cancel_ends_the_drivers_and_the_workers(cluster_user, sandbox, ordinary_user, asked):
    user, (_, output, _) = cluster_user, asked
    job = submitted(user, asked, "--array", "2")
    eventually(lambda: "own-w-0" in jobs_of(sandbox, ordinary_user), "workers are submitted", timeout_s=120)
    told = user.ok("batch", "cancel", output)
    assert f"driver job {job}_0 cancelled" in told and f"driver job {job}_1 cancelled" in told
    eventually(lambda: jobs_of(sandbox, ordinary_user) == set(), "all jobs have ended")
    assert output.with_name("out.jsonl.ledger").is_dir()
    assert "was running" in user.ok("batch", "cancel", output)


def test_a_dry_run_says_how_long_workers_will_wait_for_a_busy_cluster(cluster_user, asked, busy):
    source, output, spec = asked
    told = cluster_user.ok("batch", source, output, "--spec", spec, "--max-tokens", "4", "--dry-run")
    found = re.search(r"queue +pool w: .* in (\d) min [^(]*\(0 s to (\d) min", told)
    assert found is not None, told
    assert int(found[1]) in (2, 3) and int(found[2]) in (4, 5), "by the limits of the jobs that run"


def test_cancel_leaves_nothing_of_a_batch_whose_node_is_lost(cluster_user, sandbox, ordinary_user, asked, cluster):
    user, (_, output, _) = cluster_user, asked
    job = submitted(user, asked)
    eventually(lambda: "own-w-0" in jobs_of(sandbox, ordinary_user), "workers are submitted", timeout_s=120)
    cluster.lose_node(cluster.node_of(job))
    told = user.ok("batch", "cancel", output)
    assert f"driver job {job} cancelled" in told and "deployment 'own' stopped" in told
    assert jobs_of(sandbox, ordinary_user) == set(), "jobs that would come back have been cancelled too"
