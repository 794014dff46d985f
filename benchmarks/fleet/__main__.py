"""A fleet on a real Slurm through everything that ends its jobs, with clients that stream all the time.

    python -m benchmarks.fleet [--items N] [EVENT ...]

Needs root and the packages of `slurminfer sandbox install`. A sandbox of seven nodes runs the router and three workers,
which the router reaches over TLS. Eight clients ask a small random model greedily in float32, most of them for streams;
an answer is right if it is what the undisturbed deployment said. A batch runs beside them. Then, one
after the other, and each until the fleet is whole again:

    handovers       three workers come to the end of their walltime
    router          the router's job comes to the end of its walltime
    preempt         a job of higher priority takes a worker's node
    node            a node loses its power
    scancel         a worker's job is cancelled
    engine, agent   are killed (-9)
    controller      is killed, in the middle of a hand-over
    kill_router     the router's process is killed: the clients' connections break, and they ask again
    kill_job        all processes of the router's job are killed
    asleep          a pool without workers gets a request

Before that, it measures how long the controller needs for one look at 10,000 workers (simulate/tick.py).
Writes benchmarks/results/fleet.json.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slurminfer.core.files import encode_json, write_atomic

from ..machine import machine
from .cluster import Cluster, running, wait
from .model import write_model
from .simulate.tick import measure
from .storm import Storm, questions

NAME = "fleet"
LOOKED_AT = 10_000  # workers, in the measurement of one look
TOKENS = 400
EVENTS = (
    *("handovers", "router", "preempt", "node", "scancel", "engine", "agent", "controller"),
    *("kill_router", "kill_job", "asleep"),
)
RESULTS = Path(__file__).parents[1] / "results/fleet.json"
_BACK_S = 300.0
SPEC = """
name = "{name}"
[model]
path = "{model}"
name = "m"
dtype = "float32"
[[pool]]
name = "w"
workers = 2
mem = "2G"
time = "00:05:00"
drain_seconds = 20
slurm = {{ exclusive = true }}
[[pool]]
name = "low"
partition = "low"
mem = "2G"
time = "01:00:00"
slurm = {{ exclusive = true }}
[[pool]]
name = "sleepy"
mem = "2G"
time = "00:20:00"
min_workers = 0
max_workers = 1
idle_time = 30
[pool.model]
path = "{model}"
name = "sleepy"
dtype = "float32"
[router]
port = 0
time = "00:15:00"
"""


class Events:
    """The events by name. Each returns when the fleet is whole again."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.by_name: dict[str, Callable[[], None]] = {name: getattr(self, name) for name in EVENTS}

    def handovers(self) -> None:
        """Three workers are handed over."""
        done = len(self._taken_over())
        wait(lambda: len(self._taken_over()) >= done + 3, "three workers were handed over", 1200)

    def router(self) -> None:
        """The router's time ends: another job takes over."""
        before = self._cluster.record(NAME, "router.json")["job"]
        self._cluster.slurm("scontrol", "update", f"jobid={before}", f"timelimit={self._minutes(before) + 3}")
        wait(lambda: self._cluster.record(NAME, "router.json").get("job") not in (None, before), "another router", 600)
        wait(lambda: not self._cluster.node_of(before), "the router before has ended", 600)

    def preempt(self) -> None:
        """A job of higher priority takes the node after the grace time."""
        record = self._worker("low")
        job = self._cluster.submit("--partition=high", "--exclusive", f"--nodelist={record['host']}")
        wait(lambda: self._cluster.node_of(job), "the job of higher priority runs")
        self._cluster.slurm("scancel", job)
        self._whole()

    def node(self) -> None:
        """A node loses its power."""
        self._cluster.lose_node(self._worker("w")["host"])
        time.sleep(5)
        self._cluster.restore_nodes()
        self._whole()

    def scancel(self) -> None:
        """A worker's job is cancelled."""
        self._gone(lambda record: self._cluster.slurm("scancel", record["job"]))

    def engine(self) -> None:
        """SIGKILL for a worker's engine."""
        self._gone(lambda record: self._cluster.kill(record["job"], "slurminfer.nodes.native"))

    def agent(self) -> None:
        """SIGKILL for a worker's agent."""
        self._gone(lambda record: self._cluster.kill(record["job"]))

    def controller(self) -> None:
        """SIGKILL for the controller, while a worker is missing."""
        record = self._worker("w")
        self._cluster.slurm("scancel", record["job"])
        for _ in range(3):
            self._cluster.kill(self._cluster.record(NAME, "router.json")["job"], "slurminfer.jobs.fleet")
            time.sleep(3)
        self._whole()

    def kill_router(self) -> None:
        """SIGKILL for the router's process."""
        self._kill_router("slurminfer.router")

    def kill_job(self) -> None:
        """SIGKILL for all processes of the router's job."""
        self._kill_router("")

    def _kill_router(self, word: str) -> None:
        before = self._cluster.record(NAME, "router.json")
        self._cluster.kill(before["job"], word)
        wait(
            lambda: self._cluster.record(NAME, "router.json").get("started_at") != before["started_at"], "a router", 400
        )
        self._whole()

    def asleep(self) -> None:
        """The first request of a pool that has no worker is answered."""
        wait(lambda: not self._workers("sleepy"), "the pool without requests has no worker", 300)
        said = self._cluster.ask(NAME, {"model": "sleepy", "prompt": "Wake up", "max_tokens": 4, "temperature": 0})
        assert said["choices"][0]["finish_reason"], said

    def _gone(self, end: Callable[[dict[str, Any]], object]) -> None:
        record = self._worker("w")
        end(record)
        wait(lambda: record["id"] not in {one["id"] for one in self._workers("w")}, f"{record['id']} is gone", _BACK_S)
        self._whole()

    def _whole(self) -> None:
        """Wait until all workers that are wanted serve."""
        wait(lambda: len(self._workers("w")) >= 2 and self._workers("low"), "the fleet is whole", _BACK_S)

    def _workers(self, pool: str) -> list[dict[str, Any]]:
        """The records of the pool's workers that are ready, as far as Slurm still runs their jobs."""
        running = self._cluster.slurm("squeue", "--noheader", "--states=RUNNING", "--format=%i").split()
        found = self._cluster.workers(NAME)
        return [one for one in found if one["pool"] == pool and one["state"] == "ready" and one["job"] in running]

    def _worker(self, pool: str) -> dict[str, Any]:
        return self._workers(pool)[0]

    def _taken_over(self) -> list[str]:
        fleet = self._cluster.record(NAME, "fleet.json")
        return [one["id"] for one in fleet["pools"]["w"]["ended"] if "take" in one["cause"]]

    def _minutes(self, job: str) -> int:
        return int((time.time() - self._cluster.started_at(job)) // 60)


def main() -> int:
    """Run the events; 1 if an answer was not right, or an item of the batch is missing or twice there."""
    parser = argparse.ArgumentParser(description="Take a fleet on a Slurm sandbox through all that ends its jobs.")
    parser.add_argument("events", nargs="*", help=f"of {', '.join(EVENTS)}; by default all")
    parser.add_argument("--items", type=int, default=2000, help="of the batch (default 2000)")
    arguments = parser.parse_args()
    wanted, items = arguments.events, arguments.items
    found: dict[str, Any] = {"machine": machine(), "look": measure(LOOKED_AT)}
    with running(Path("/var/tmp") / f"slurminfer-fleet-{os.getpid()}", nodes=7) as cluster:
        found |= run(cluster, wanted, items)
    found["ratios"][f"tick_s_{LOOKED_AT}"] = found["look"][f"tick_s_{LOOKED_AT}"]
    print(json.dumps(found, indent=2))
    if not wanted:
        write_atomic(RESULTS, encode_json(found))
    ratios = found["ratios"]
    bad = ("failed_requests", "wrong_answers", "batch_missing", "batch_duplicate")
    return int(found["clients"]["right"] == 0 or any(ratios[name] for name in bad))


def run(cluster: Cluster, wanted: list[str], items: int) -> dict[str, Any]:
    """Serve, ask, break; how the requests ended, and what the controller did. `items`: of the batch."""
    write_model(cluster.home / "model")
    spec, batch = cluster.home / "spec.toml", cluster.home / "items.jsonl"
    spec.write_text(SPEC.format(name=NAME, model=cluster.home / "model"), encoding="utf-8")
    lines = [json.dumps({"id": f"item-{n}", "prompt": f"Item {n}:", "max_tokens": 48}) for n in range(items)]
    batch.write_text("\n".join(lines) + "\n", encoding="utf-8")
    cluster.box.give(cluster.user, cluster.home)
    cluster.slurminfer("serve", spec, "--wait")
    try:
        return _break(cluster, wanted, batch, items)
    finally:
        log = cluster.home / "runs" / NAME / "logs/router/controller.log"
        print(log.read_text(encoding="utf-8"), file=sys.stderr)
        cluster.slurminfer("stop", NAME)


def _break(cluster: Cluster, wanted: list[str], batch: Path, items: int) -> dict[str, Any]:
    events = Events(cluster)
    events._whole()
    storm = Storm(lambda: cluster.target(NAME), questions("m", TOKENS), again=True)
    storm.start()
    output = batch.with_name("results.jsonl")
    driver = cluster.popen("batch", batch, output, "--run", NAME, "--model", "m", "--concurrency", "2")
    by_event: dict[str, Any] = {}
    try:
        for name in wanted or events.by_name:
            wait(lambda at=storm.answers: storm.answers >= at + 8, "answers come")  # type: ignore[misc]
            began = time.monotonic()
            events.by_name[name]()
            by_event[name] = round(time.monotonic() - began, 1)
            print(f"{name}: {by_event[name]} s, {dict(storm.counts)} {dict(storm.reasons)}", file=sys.stderr)
    finally:
        counts = storm.stop()
        said, _ = driver.communicate(timeout=1800)
    # What a random model says has characters at which str.splitlines would split too.
    ids = [json.loads(line)["id"] for line in output.read_bytes().split(b"\n") if line]
    fleet = cluster.record(NAME, "fleet.json")
    handed = [one for pool in ("w", "low") for one in fleet["pools"][pool]["ended"] if "take" in one["cause"]]
    routers = [one for one in fleet["decisions"] if "another router has taken over" in one["text"]]
    ratios = {
        "handovers": len(handed),
        "router_handovers": len(routers),
        "failed_requests": counts["lost"] + counts["silent_cuts"] + counts["refused"],
        "wrong_answers": counts["wrong"],
        "batch_missing": items - len(set(ids)),
        "batch_duplicate": len(ids) - len(set(ids)),
    }
    return {
        "ratios": ratios,
        "seconds": by_event,
        "clients": counts,
        "reasons": dict(storm.reasons),
        "batch": said.splitlines()[-3:],
        "decisions": [one["text"] for one in fleet["decisions"]],
    }


if __name__ == "__main__":
    sys.exit(main())
