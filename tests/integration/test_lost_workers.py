"""Workers that a real Slurm takes away while answers are in flight, and workers that it does not start."""

import time

import pytest

from benchmarks.fleet.cluster import Cluster
from benchmarks.fleet.model import write_model
from benchmarks.fleet.storm import Storm, questions

from ..support.waiting import eventually

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

SPEC = """
name = "lost"
[model]
path = "{model}"
name = "m"
dtype = "float32"
[[pool]]
name = "cpu"
workers = 2
mem = "2G"
drain_seconds = 10
slurm = {{ exclusive = true }}
[[pool]]
name = "low"
partition = "low"
mem = "2G"
slurm = {{ exclusive = true }}
[[pool]]
name = "held"
slurm = {{ hold = true }}
[[pool]]
name = "long"
time = "3-00:00:00"
[router]
port = 0
time = "00:30:00"
"""


@pytest.fixture
def cluster(cluster_user, sandbox, ordinary_user, shared):
    """A deployment of three workers on nodes of their own, and two that cannot start."""
    write_model(shared / "model", layers=4)
    (shared / "spec.toml").write_text(SPEC.format(model=shared / "model"), encoding="utf-8")
    sandbox.give(ordinary_user, shared / "model")
    cluster = Cluster(sandbox, cluster_user.home, ordinary_user)
    cluster_user.ok("serve", shared / "spec.toml")
    for worker in ("cpu-0", "cpu-1", "low-0"):
        cluster.wait_ready("lost", worker)
    eventually(lambda: cluster.record("lost", "router.json").get("url"))
    eventually(lambda: all(shown(cluster, worker).get("healthy") for worker in ("cpu-0", "cpu-1", "low-0")))
    yield cluster
    cluster.restore_nodes()
    # Whatever came of the test: the next one needs this job's node.
    cluster.slurm("scancel", f"--user={ordinary_user}", "--partition=high")


def shown(cluster: Cluster, worker: str) -> dict:
    """What the status page is told of a worker."""
    page = cluster.page("lost", "/status.json")
    assert "workers" in page, page
    return next(one for one in [*page["workers"], *page["expected_workers"]] if one["id"] == worker)


def standing(cluster: Cluster, worker: str) -> tuple[str, str, bool]:
    """State, Slurm's reason, and whether there is an obstacle, as the status page is told."""
    found = shown(cluster, worker)
    return found["state"], found["reason"], bool(found.get("obstacle"))


def test_answers_go_on_whatever_slurm_does_to_workers_and_the_page_says_why_others_wait(cluster):
    lose_one_to_other_jobs_and_one_with_its_node(cluster)
    cancel_one_and_let_the_time_of_another_end(cluster)


def lose_one_to_other_jobs_and_one_with_its_node(cluster: Cluster) -> None:
    storm = Storm(lambda: cluster.target("lost"), questions("m", 200), clients=6)
    storm.start()
    try:
        eventually(lambda: storm.answers >= 6)
        preempted = cluster.worker("lost", "low-0")
        job = cluster.submit("--partition=high", "--exclusive", f"--nodelist={preempted['host']}")
        eventually(lambda: cluster.node_of(job), "the job of higher priority runs")
        lost = cluster.worker("lost", "cpu-1")
        # With two workers left for six clients each has answers under way, but maybe not right after low-0 has gone.
        eventually(lambda: shown(cluster, "cpu-1")["in_flight"] >= 2, "the worker to be lost is at work")
        cluster.lose_node(lost["host"])
        so_far = storm.answers
        eventually(lambda: storm.answers >= so_far + 6)
    finally:
        counts = storm.stop()
    assert counts.pop("right") >= 12
    assert not any(counts.values()), storm.reasons
    eventually(lambda: cluster.page("lost", "/status.json")["failovers"] >= 1)  # relays report a moment later

    # Nobody has asked for the status: the router's job itself asks Slurm. No node is free for the preempted worker.
    eventually(lambda: standing(cluster, "low-0")[0] == "queued", "Slurm's word for the preempted worker is known")
    assert standing(cluster, "held-0") == ("queued", "JobHeldUser", True)
    assert standing(cluster, "long-0") == ("queued", "PartitionTimeLimit", True)
    cluster.restore_nodes()  # the job of the lost worker may be the first to get one
    cluster.slurm("scancel", job)
    cluster.wait_ready("lost", "low-0", preempted["epoch"] + 1)
    eventually(lambda: standing(cluster, "low-0")[:2] == ("ready", ""), "the router knows that it is back")
    cluster.wait_ready("lost", "cpu-1", lost["epoch"] + 1)


def cancel_one_and_let_the_time_of_another_end(cluster: Cluster) -> None:
    # Clients that rest leave CPU time to the workers that start, for the two minutes that this takes.
    storm = Storm(lambda: cluster.target("lost"), questions("m", 200), clients=3, rest_s=10.0)
    storm.start()
    try:
        eventually(lambda: shown(cluster, "cpu-0")["in_flight"], "the worker to be cancelled is at work")
        cluster.slurm("scancel", cluster.worker("lost", "cpu-0")["job"])
        cluster.wait_ready("lost", "cpu-2")
        leaving = cluster.worker("lost", "cpu-1")["job"]
        minutes = int((time.time() - cluster.started_at(leaving)) // 60) + 2
        cluster.slurm("scontrol", "update", f"jobid={leaving}", f"timelimit={minutes}")
        eventually(lambda: cluster.worker("lost", "cpu-3"), "its successor has got its node", 200)
        cluster.wait_ready("lost", "cpu-3")
        eventually(lambda: not cluster.worker("lost", "cpu-1"), "the worker whose time ends has gone")
        so_far = storm.answers
        eventually(lambda: storm.answers >= so_far + 6)
    finally:
        counts = storm.stop()
    assert counts.pop("right") >= 12
    assert not any(counts.values()), storm.reasons
    ended = cluster.record("lost", "fleet.json")["pools"]["cpu"]["ended"]
    assert [(one["id"], one["is_wanted"]) for one in ended] == [("cpu-0", False), ("cpu-1", True)]
