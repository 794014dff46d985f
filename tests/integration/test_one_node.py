"""Workers of two jobs on one node of a real Slurm, with engines that compute nothing."""

import sys
from pathlib import Path

import pytest

from benchmarks.fleet.cluster import Cluster
from benchmarks.fleet.model import write_model

from .conftest import HOUSE, User
from .deployments import serve

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]


@pytest.fixture
def cluster(cluster_user: User, sandbox, ordinary_user: str) -> Cluster:
    return Cluster(sandbox, cluster_user.home, ordinary_user)


@pytest.fixture
def pool(shared: Path) -> str:
    """Lines of a pool whose engines compute nothing."""
    python = shared / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {HOUSE}/tests/nodes/agent/fake_engine.py "$@"\n')
    python.chmod(0o755)
    return f'python = "{python}"\ncpus_per_task = 2\nmem = "2G"\n'


def test_two_jobs_on_a_node_share_a_copy_of_the_weights_until_stop(
    cluster, cluster_user, sandbox, ordinary_user, shared, pool
):
    model, disk = shared / "model", shared / "disk"
    write_model(model, layers=1)
    for node in ("n1", "n2", "n3", "n4"):  # each sees the folders of all, and uses its own
        (disk / node).mkdir(parents=True, mode=0o755)
    sandbox.give(ordinary_user, shared)
    lines = f'{pool}workers = 2\nslurm = {{ nodelist = "n2" }}\nstage_weights = "{disk}/$SLURMD_NODENAME"'
    serve(cluster_user, shared, "staged", lines, model=model)
    workers = [cluster.wait_ready("staged", worker) for worker in ("w-0", "w-1")]
    assert [(one["host"], one["remark"]) for one in workers] == [("n2", "")] * 2
    logs = [cluster_user.ok("logs", "staged", one["id"]) for one in workers]
    assert sorted("(copied, " in log for log in logs) == [False, True]
    (copied,) = (path for path in disk.rglob("model") if path.is_dir())
    assert copied.is_relative_to(disk / "n2") and all(f"--model {copied} " in log for log in logs)
    cluster_user.ok("stop", "staged")
    assert list(disk.glob("*/*/weights/*")) == []
