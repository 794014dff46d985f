"""What `serve --wait`, `status` and `logs` say where a real Slurm does not start jobs, or ends them."""

import pytest

from benchmarks.fleet.model import write_model

from ..support.waiting import eventually
from .deployments import ended

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

SPEC = """
name = "{name}"
[model]
path = "{model}"
name = "m"
dtype = "float32"
[router]
port = 0
time = "00:30:00"
"""
NEVER = """
[[pool]]
name = "long"
time = "3-00:00:00"
"""
SOME = """
[[pool]]
name = "cpu"
mem = "2G"
setup = ["module load cuda"]
[[pool]]
name = "flag"
mem = "2G"
extra_args = ["--frobnicate", "1"]
"""


@pytest.fixture
def write_spec(sandbox, ordinary_user, shared):
    """Writes a spec that the ordinary user can read; its path."""
    write_model(shared / "model", layers=1)
    sandbox.give(ordinary_user, shared / "model")

    def write(name: str, pools: str):
        path = shared / f"{name}.toml"
        path.write_text(SPEC.format(name=name, model=shared / "model") + pools, encoding="utf-8")
        return path

    return write


def test_waiting_for_what_never_starts_fails_with_what_to_change(cluster_user, write_spec):
    done = cluster_user.slurminfer("serve", write_spec("never", NEVER), "--wait")
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "worker long-0: PartitionTimeLimit: cannot start, its walltime limit is above" in said
    assert "What to change: a shorter `time`, or another `partition`" in said
    assert "'slurminfer stop never' ends what still runs" in said


def test_why_jobs_have_ended(cluster_user, sandbox, ordinary_user, write_spec):
    cluster_user.ok("serve", write_spec("some", SOME), "--wait")
    workers = {worker["id"]: worker for worker in cluster_user.status("some")["workers"]}
    assert workers["cpu-0"]["remark"] == "setup: exit status 127 of: module load cuda"
    flag = eventually(lambda: ended(cluster_user, "some", "flag-0"), "the worker with the wrong option has ended")
    assert flag["cause"].startswith("the engine does not know one of its options: --frobnicate 1")
    assert "`extra_args`" in flag["advice"]
    assert "what to change: correct `extra_args`" in " ".join(cluster_user.ok("logs", "some", "flag-0").split())

    sandbox.run_as(ordinary_user, ["scancel", workers["cpu-0"]["job"]])
    # Its agent says that it is gone before Slurm says that the job was cancelled.
    eventually(lambda: "cancelled" in ended(cluster_user, "some", "cpu-0").get("cause", ""), "the cause is known")
    eventually(
        lambda: [one["id"] for one in cluster_user.status("some")["workers"] if one["state"] == "ready"] == ["cpu-1"],
        "another worker has taken its place",
    )
    assert "flag-0 ended at" in cluster_user.ok("status", "some")
