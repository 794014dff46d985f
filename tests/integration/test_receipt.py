"""The receipt of two workers in a job that Slurm requeues, beside what Slurm accounts and what clients have counted."""

import json
from typing import Any

import httpx
import pytest

from benchmarks.fleet.cluster import Cluster
from benchmarks.fleet.model import write_model
from slurminfer.core.machine.cpus import by_core, cpu_ids

from ..support.waiting import eventually

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(400),
    pytest.mark.skipif(len(by_core(cpu_ids())) < 2, reason="each worker of a job needs a core"),
]
WORKERS = ("cpu-0.0", "cpu-0.1")

SPEC = """
name = "r"
[model]
path = "{model}"
name = "m"
dtype = "float32"
[[pool]]
name = "cpu"
mem = "2G"
cpus_per_task = 2
workers_per_job = 2
[router]
port = 0
"""


@pytest.fixture
def cluster(cluster_user, sandbox, ordinary_user, shared):
    """A deployment of two workers in one job."""
    write_model(shared / "model", layers=2)
    (shared / "spec.toml").write_text(SPEC.format(model=shared / "model"), encoding="utf-8")
    sandbox.give(ordinary_user, shared / "model")
    cluster_user.ok("serve", shared / "spec.toml", "--wait")
    return Cluster(sandbox, cluster_user.home, ordinary_user)


def ask(cluster_user, key: str) -> dict[str, Any]:
    """The usage of an answer."""
    body = {"model": "m", "prompt": [5] * 40, "max_tokens": 4}
    headers = {"Authorization": f"Bearer {key}"}
    url = cluster_user.status("r")["endpoint"]
    return dict(
        httpx.post(f"{url}/completions", json=body, headers=headers, timeout=60).raise_for_status().json()["usage"]
    )


def is_known(cluster_user, key: str) -> bool:
    """Whether the router takes a key."""
    url = cluster_user.status("r")["endpoint"]
    return httpx.get(f"{url}/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def accounted_s(sandbox, ordinary_user, jobs: list[str]) -> float | None:
    """CPU-seconds of all runs of the jobs by sacct; None as long as one has no end there."""
    words = ["sacct", "-nPDX", "--format=ElapsedRaw,AllocCPUS,End", f"--jobs={','.join(jobs)}"]
    rows = [line.split("|") for line in sandbox.run_as(ordinary_user, words).stdout.splitlines()]
    return None if any(end == "Unknown" for _, _, end in rows) else sum(float(s) * int(cpus) for s, cpus, _ in rows)


def test_hours_are_sacct_s_and_tokens_the_clients_own(cluster, cluster_user, sandbox, ordinary_user):
    key = cluster_user.ok("keys", "r", "add", "alice", "--account", "astro").strip()
    eventually(lambda: is_known(cluster_user, key), "the router knows the key")
    first = [ask(cluster_user, key) for _ in range(3)]
    jobs = [job["id"] for job in cluster.record("r", "deployment.json")["jobs"]]
    (job,) = {cluster.wait_ready("r", worker)["job"] for worker in WORKERS}
    cluster.slurm("scontrol", "requeue", job)
    again = [cluster.wait_ready("r", worker, epoch=1) for worker in WORKERS]
    assert [(one["job"], one["epoch"]) for one in again] == [(job, 1), (job, 1)]
    usages = [*first, *(ask(cluster_user, key) for _ in range(3))]
    cluster_user.ok("stop", "r")
    accounted = eventually(lambda: accounted_s(sandbox, ordinary_user, jobs))
    receipt = json.loads(cluster_user.ok("receipt", "r", "--json"))
    assert receipt["total"]["total"]["cpu"] * 3600 == pytest.approx(accounted, abs=0.01)
    assert [one["jobs"] for one in receipt["charged"]] == [2]
    (alice,) = receipt["tenants"]
    assert (alice["name"], alice["account"], alice["requests"]) == ("alice", "astro", 6)
    for ours, theirs in {"prompt_tokens": "prompt_tokens", "generated_tokens": "completion_tokens"}.items():
        assert alice[ours] == sum(usage[theirs] for usage in usages)
    assert alice["cached_tokens"] == sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
