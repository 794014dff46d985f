"""A deployment on Slurm as another user of its nodes sees it: as test_neighbour.py, with workers on the network."""

import pytest

from benchmarks.fleet.model import write_model
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.trust import TRUSTED_OWNERS

from ..integration.conftest import cluster_user, commands_there, demo_model
from ..support.waiting import eventually
from .neighbour import OPEN, Deployment, answering, as_neighbour, endpoint_of, processes_of, reachable, readable

pytestmark = [pytest.mark.slurm, pytest.mark.network, pytest.mark.timeout(400)]
__all__ = ["cluster_user", "commands_there", "demo_model"]  # fixtures
TOKEN = "hf_of_the_owner"
SPEC = """
name = "here"
[model]
path = "{model}"
context_length = 512
[[pool]]
name = "cpu"
cpus_per_task = 1
extra_args = ["--kv-cache-gib", "0.1"]
env = {{ HF_TOKEN = "{token}" }}
[[pool]]
name = "both"
extra_args = ["--kv-cache-gib", "0.1"]
nodes = 2
cpus_per_task = 1
pipeline_parallel = 2
[router]
port = 0
"""


def test_nothing_is_readable_and_nothing_answers_but_health(cluster_user, sandbox, ordinary_user, shared, monkeypatch):
    write_model(shared / "model", layers=2)
    sandbox.give(ordinary_user, shared / "model")
    spec = shared / "spec.toml"
    spec.write_text(SPEC.format(model=shared / "model", token=TOKEN), encoding="utf-8")
    cluster_user.ok("serve", spec, "--wait", timeout_s=300)
    eventually(
        lambda: {worker["state"] for worker in cluster_user.status("here")["workers"]} == {"ready"}, timeout_s=200
    )
    home = cluster_user.home
    deployment = Deployment.of(processes_of(home))
    monkeypatch.setenv(TRUSTED_OWNERS, home.owner())  # this test is root's
    run = RunDirectory(home / "runs" / "here")

    lent = tuple(map(str, ("/usr", "/proc", home / "models", home / "kernels", shared / "model")))
    theirs = [path for path in deployment.files if not path.startswith(lent)]
    assert as_neighbour(lambda: readable([str(run.path)], theirs)) == []
    assert as_neighbour(lambda: reachable(deployment.sockets)) == []
    assert len(deployment.ports) > 4, "a router with two ports, a gate for each worker, and channels of ranks"
    assert answering(deployment) == {endpoint_of(run): OPEN}

    secrets = [run.key(), TOKEN, *(worker.key for worker in run.read_workers())]
    assert all(secrets)
    assert not [line for line in deployment.lines if any(secret in line for secret in secrets)]
