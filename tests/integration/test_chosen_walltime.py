"""Workers whose walltime Slurm and the controller choose, before a maintenance."""

import json
import subprocess

import pytest

from benchmarks.fleet.model import write_model
from slurminfer.slurm.queue import queue

from ..support.waiting import eventually

pytestmark = [pytest.mark.slurm, pytest.mark.network, pytest.mark.timeout(400)]
SPEC = """
name = "chosen"
[model]
path = "{model}"
[[pool]]
name = "w"
cpus_per_task = 1
mem = "3G"
time = "04:00:00"
time_min = "01:00:00"
drain_seconds = 20
[router]
port = 0
time = "00:30:00"
"""


def test_workers_get_the_time_that_is_left_and_know_when_it_ends(
    cluster_user, sandbox, ordinary_user, in_sandbox, shared
):
    write_model(shared / "model", layers=1)
    sandbox.give(ordinary_user, shared / "model")
    window = ["reservationname=soon", "starttime=now+150minutes", "duration=120", "flags=maint,ignore_jobs"]
    subprocess.check_call(["scontrol", "create", "reservation", *window, "nodes=ALL", "users=root"])
    try:
        spec = shared / "chosen.toml"
        spec.write_text(SPEC.format(model=shared / "model"), encoding="utf-8")
        cluster_user.ok("serve", spec, "--wait", timeout_s=200)
        assert limit_of(cluster_user, "w-0") == 3600  # Slurm has shortened it, as much as it may
        (first,) = cluster_user.status("chosen")["workers"]
        subprocess.check_call(["scancel", first["job"]])
        eventually(lambda: states(cluster_user) == {"w-1": "ready"}, "another worker has taken its place", 120)
        # An eighth of the time until the reservation is left for waiting.
        assert 125 * 60 <= limit_of(cluster_user, "w-1") <= 131 * 60
        said = (cluster_user.home / "runs/chosen/logs/router/controller.log").read_text()
        assert "w-1 is submitted: 1 worker missing; 02:1" in said and "Slurm forecasts a start in" in said
        cluster_user.ok("stop", "chosen")
    finally:
        subprocess.check_call(["scontrol", "delete", "reservationname=soon"])


def states(user) -> dict[str, str]:
    return {worker["id"]: worker["state"] for worker in user.status("chosen")["workers"]}


def limit_of(user, worker: str) -> int:
    """The limit of the worker's job in seconds; the worker must know when that ends."""
    record = json.loads((user.home / f"runs/chosen/workers/{worker}.json").read_text())
    job = queue([record["job"]])[record["job"]]
    assert job.ends_at is not None and job.limit_s is not None and abs(record["ends_at"] - job.ends_at) <= 1
    return job.limit_s
