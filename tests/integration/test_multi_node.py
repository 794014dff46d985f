"""A worker on two nodes of a real Slurm, with an engine that computes nothing, and what kills it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ..support.waiting import eventually
from .conftest import HOUSE, User
from .deployments import reason_of_failure

pytestmark = [pytest.mark.slurm, pytest.mark.network, pytest.mark.timeout(300)]

SPEC = """
name = "wide"
[model]
path = "demo"
[[pool]]
name = "cpu"
python = "{python}"
nodes = 2
tensor_parallel = 2
cpus_per_task = 1
env = {{ FAKE_ENGINE_HANGS = "{hangs}" }}
[router]
port = 0
"""


@pytest.fixture
def serve(cluster_user: User, shared: Path):
    """Start the worker and wait until it is ready."""

    def serve(hangs: bool = False) -> dict:
        python, spec = shared / "python", shared / "spec.toml"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {HOUSE}/tests/nodes/agent/fake_engine.py "$@"\n')
        python.chmod(0o755)
        spec.write_text(SPEC.format(python=python, hangs=int(hangs)))
        cluster_user.ok("serve", spec, "--wait")
        return cluster_user.status("wide")["workers"][0]

    return serve


def engines(home: Path) -> list[psutil.Process]:
    """The engine's processes, by node rank. Every node of the sandbox is on this machine."""
    found = {}
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if any(word.endswith("fake_engine.py") for word in words) and process.environ()["SLURMINFER_HOME"] == str(
                home
            ):
                found[int(words[words.index("--node-rank") + 1])] = process
        except (psutil.Error, KeyError):
            continue
    return [found[rank] for rank in sorted(found)]


def log_of(user: User, node_rank: int, epoch: int = 0) -> str:
    return (user.home / f"runs/wide/logs/cpu-0/engine.{epoch}.{node_rank}.log").read_text(encoding="utf-8")


def test_one_line_of_the_spec_makes_a_worker_of_two_nodes_which_meet_anew_after_a_requeue(serve, cluster_user, sandbox):
    job = serve()["job"]
    hosts = {process.environ()["SLURMD_NODENAME"] for process in engines(cluster_user.home)}
    assert len(hosts) == 2
    for node_rank in (0, 1):
        assert f"node rank {node_rank} of 2 at 127.77." in log_of(cluster_user, node_rank)
        assert "over ['=lo', 'lo']" in log_of(cluster_user, node_rank)
    subprocess.run(["scancel", "--signal=USR2", job], env=sandbox.env(), check=True)
    path = cluster_user.home / "runs/wide/rendezvous/cpu-0.1"
    eventually(path.exists, timeout_s=120)
    eventually(lambda: cluster_user.status("wide")["workers"][0]["state"] == "ready")
    assert "node rank 1 of 2" in log_of(cluster_user, 1, epoch=1)
    cluster_user.ok("stop", "wide")
    asked = subprocess.run(["scontrol", "show", "job", job], env=sandbox.env(), capture_output=True, text=True)
    assert "JobState=CANCELLED" in asked.stdout
    assert engines(cluster_user.home) == []


@pytest.mark.parametrize("hangs", [False, True])
def test_a_killed_engine_of_the_second_node_ends_the_job_with_its_reason(serve, cluster_user, hangs):
    serve(hangs)
    engines(cluster_user.home)[1].kill()
    reason = reason_of_failure(cluster_user, "wide", "cpu-0")
    assert re.search(r"node rank 1 on n\d: engine killed by SIGKILL", reason), reason
    assert engines(cluster_user.home) == []


def test_a_killed_task_of_the_second_node_ends_the_job_with_srun_s_word_for_it(serve, cluster_user):
    serve(hangs=True)
    agent = engines(cluster_user.home)[1].parent()
    assert agent is not None
    os.kill(agent.pid, signal.SIGKILL)
    reason = reason_of_failure(cluster_user, "wide", "cpu-0")
    assert re.search(r"ended by SIGTERM: task 1 on n\d: Killed$", reason), reason
    assert engines(cluster_user.home) == []
