"""A batch in a Slurm sandbox, while workers, router and driver are killed at random and its disk fills.

Three workers compute a small real model greedily in float32, and the driver is a submitted job. First the batch runs
undisturbed; then again, with another output on a disk of its own. Its progress says when what comes next is broken, so
that all events fall into the batch. A driver that has ended before the output is whole is submitted again, as a user
does. What counts is the output: every row once, with the answer, finish reason and token counts of the undisturbed run.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.batch import ledger_of
from slurminfer.jobs.batch.ledger.look import look
from slurminfer.quant.models import resolve

from ..fleet.cluster import Cluster, running, wait
from .inputs import read_lines, write_lines

NAME = "batch"
SPEC = """
name = "batch"
[model]
path = "{model}"
name = "m"
dtype = "float32"
[[pool]]
name = "w"
workers = 3
mem = "2G"
time = "02:00:00"
slurm = {{ exclusive = true }}
extra_args = ["--context-length", "512", "--kv-cache-gib", "0.1"]
[router]
port = 0
time = "02:00:00"
"""
# 20 of them; their order is drawn.
EVENTS = (
    *("kill_engine",) * 4, *("kill_agent",) * 2, *("cancel_worker",) * 3, *("stop_engine",) * 2,
    *("kill_router",) * 2, "kill_router_job", *("kill_driver",) * 3, "kill_driver_job", "cancel_driver", "stop_driver",
)  # fmt: skip
_WORDS = ("river", "bread", "moon", "chess", "bicycle", "rain", "train", "bee", "stone", "letter", "window")
_STOPPED_S, _FULL_S = 15.0, 12.0
_DISK_BYTES = 32 << 20
_LOOK_EVERY_S = 1.0
_PATIENCE_S = 1800.0
_MOST_TRIES = 5  # of rows that have failed


@dataclass(frozen=True)
class Size:
    """How much of it."""

    rows: int
    events: int  # the disk apart


WHOLE, QUICK = Size(5000, len(EVENTS)), Size(400, 5)


def rows_of(count: int) -> list[dict[str, Any]]:
    """Short prompts for short answers; every hundredth row asks the same as the one before it."""
    found: list[dict[str, Any]] = []
    for number in range(count):
        rng = random.Random(number - (number % 100 == 1))
        words = " ".join(rng.choices(_WORDS, k=rng.randint(3, 8)))
        found.append({"id": number, "prompt": f"The {words} is", "max_tokens": rng.randint(2, 8), "temperature": 0})
    return found


def verdict(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> dict[str, int]:
    """How the rows of a disturbed output differ from those of an undisturbed one. Pure."""
    answers = {row["id"]: row for row in expected}
    seen = Counter(row["id"] for row in found)
    answered = {row["id"] for row in found if row["error"] is None}
    compared = ("prompt", "generated_text", "finish_reason")
    wrong = 0
    for row in found:
        right = answers.get(row["id"])
        if row["error"] is None:
            wrong += right is None or _tokens(row) != _tokens(right) or any(row[key] != right[key] for key in compared)
    return {
        "missing": len(answers.keys() - answered),
        "duplicate": sum(count - 1 for count in seen.values()),
        "wrong": wrong,
        "misplaced": sum(row["id"] != at for at, row in enumerate(found)),
    }


def _tokens(row: dict[str, Any]) -> tuple[int, int]:
    return row["usage"]["prompt_tokens"], row["usage"]["completion_tokens"]


@dataclass
class Driver:
    """The batch's driver as a job, submitted again as often as it must be."""

    cluster: Cluster
    input: Path
    output: Path
    submitted: int = 0
    failed_rows: list[int] = field(default_factory=list)  # rows with an error, each time that the output was whole

    @property
    def job(self) -> str:
        """Slurm's id of the job that waits or runs; empty if none does."""
        argv = ("squeue", "--noheader", f"--name=batch-{self.output.name}", "--format=%A")
        return self.cluster.slurm(*argv, "--states=PENDING,RUNNING,SUSPENDED,CONFIGURING,COMPLETING").strip()

    def submit(self) -> None:
        """By the command that a user would give again; what it refuses is left for the next look."""
        with suppress(RuntimeError):
            self.cluster.slurminfer("batch", self.input, self.output, "--run", NAME, "--submit")
            self.submitted += 1

    def settled(self) -> int:
        """Rows that are done."""
        with suppress(BatchError):
            counts = look(ledger_of(self.output)).counts
            return counts.answered + counts.failed
        return 0

    def is_done(self) -> bool:
        """Whether the output is whole; sees to it that a driver works on it until then."""
        if self.job:
            return False
        if not self.output.exists():
            self.submit()
            return False
        failed = sum(row["error"] is not None for row in read_lines(self.output))
        self.failed_rows.append(failed)
        if failed and len(self.failed_rows) < _MOST_TRIES:
            self.output.unlink()
            self.submit()
            return False
        return True


class Breaking:
    """What is broken, by name."""

    def __init__(self, cluster: Cluster, driver: Driver, rng: random.Random) -> None:
        self._cluster, self._driver, self._rng = cluster, driver, rng
        self._stopped: list[tuple[float, str, str]] = []  # until when, job, word
        self.reached: Counter[str] = Counter()  # events that have hit something

    def do(self, name: str) -> None:
        """Break one thing."""
        event: Callable[[], object] = getattr(self, name)
        self.reached[name] += bool(event())

    def kill_engine(self) -> int:
        """SIGKILL for a worker's engine."""
        return self._cluster.kill(self._worker(), "slurminfer.nodes.native")

    def kill_agent(self) -> int:
        """SIGKILL for a worker's agent, and all else of its job."""
        return self._cluster.kill(self._worker())

    def cancel_worker(self) -> int:
        """A worker's job is cancelled."""
        self._cluster.slurm("scancel", self._worker())
        return 1

    def stop_engine(self) -> int:
        """SIGSTOP for a worker's engine, for a while."""
        return self._stop(self._worker(), "slurminfer.nodes.native")

    def kill_router(self) -> int:
        """SIGKILL for the router's process."""
        return self._cluster.kill(self._router(), "slurminfer.router")

    def kill_router_job(self) -> int:
        """SIGKILL for all processes of the router's job."""
        return self._cluster.kill(self._router())

    def kill_driver(self) -> int:
        """SIGKILL for the driver's process."""
        return self._cluster.kill(self._work(), "slurminfer.jobs.batch.submit") or self._cluster.kill(self._work())

    def kill_driver_job(self) -> int:
        """SIGKILL for all processes of the driver's job."""
        return self._cluster.kill(self._work())

    def cancel_driver(self) -> int:
        """The driver's job is cancelled."""
        self._cluster.slurm("scancel", self._work())
        return 1

    def stop_driver(self) -> int:
        """SIGSTOP for the driver, for a while."""
        return self._stop(self._work(), "")

    def resume(self) -> None:
        """SIGCONT for what was stopped long enough."""
        for one in [one for one in self._stopped if one[0] < time.monotonic()]:
            self._stopped.remove(one)
            self._cluster.signal(one[1], one[2], signal.SIGCONT)

    def _stop(self, job: str, word: str) -> int:
        self._stopped.append((time.monotonic() + _STOPPED_S, job, word))
        return self._cluster.signal(job, word, signal.SIGSTOP)

    def _worker(self) -> str:
        """The job of a worker that is ready, waited for."""

        def ready() -> list[str]:
            running = self._cluster.slurm("squeue", "--noheader", "--states=RUNNING", "--format=%A").split()
            found = self._cluster.workers(NAME)
            return [one["job"] for one in found if one["state"] == "ready" and one["job"] in running]

        return self._rng.choice(wait(ready, "a worker is ready", 300))

    def _router(self) -> str:
        def served() -> str:
            job = str(self._cluster.record(NAME, "router.json").get("job") or "")
            return job if job and self._cluster.node_of(job) else ""

        return wait(served, "a router runs", 300)

    def _work(self) -> str:
        def running() -> str:
            self._driver.is_done()
            job = self._driver.job
            return job if job and self._cluster.node_of(job) else ""

        return wait(running, "the driver runs", 300)


def fill_disk(disk: Path, driver: Driver) -> int:
    """Leave no room on the disk for a while; 1 if the driver has ended of it."""
    ballast, job = disk / "ballast", driver.job
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 12)):
            pass
    with suppress(RuntimeError):
        wait(lambda: driver.job != job, "the driver has ended", _FULL_S)
    ballast.unlink()
    return int(driver.job != job)


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A disk of 32 MiB, mounted while the context lasts."""
    path.mkdir(mode=0o755)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES},mode=755", "slurminfer", path], check=True)
        try:
            yield path
        finally:
            subprocess.run(["umount", "--lazy", path], check=True)
    finally:
        path.rmdir()


def measure(size: Size, seed: int) -> dict[str, Any]:
    """Run the batch twice, and compare."""
    place = Path("/var/tmp") / f"slurminfer-batch-{os.getpid()}"
    with small_disk(place.with_name(f"{place.name}-disk")) as disk, running(place, nodes=6) as cluster:
        cluster.box.give(cluster.user, disk)
        model, spec = cluster.home / "model", cluster.home / "spec.toml"
        shutil.copytree(resolve("demo"), model)
        spec.write_text(SPEC.format(model=model), encoding="utf-8")
        path = write_lines(cluster.home / "rows.jsonl", rows_of(size.rows))
        cluster.box.give(cluster.user, cluster.home)
        cluster.slurminfer("serve", spec, "--wait")
        try:
            return _measure(cluster, disk, path, size, seed)
        finally:
            cluster.slurminfer("stop", NAME)


def _measure(cluster: Cluster, disk: Path, path: Path, size: Size, seed: int) -> dict[str, Any]:
    quiet = Driver(cluster, path, cluster.home / "undisturbed.jsonl")
    quiet_s = _run(quiet, lambda settled: None)
    expected = read_lines(quiet.output)
    if problems := [row["error"] for row in expected if row["error"] is not None]:
        raise RuntimeError(f"undisturbed, {len(problems)} rows have failed: {problems[0]}")
    print(f"chaos: undisturbed: {size.rows} rows in {quiet_s:.0f} s", file=sys.stderr)
    driver = Driver(cluster, path, disk / "chaos.jsonl")
    storm = Storm(cluster, disk, driver, size, seed)
    seconds = _run(driver, storm.look)
    found = verdict(expected, read_lines(driver.output))
    return {
        **found,
        "rows": size.rows,
        "undisturbed_s": quiet_s,
        "seconds": seconds,
        "events": dict(storm.breaking.reached),
        "events_left": storm.left,  # for which the batch has ended too soon
        "disk_filled": storm.filled,
        "submitted": driver.submitted,
        "failed_rows": driver.failed_rows,
    }


class Storm:
    """Breaks one thing after the other as the batch goes on."""

    def __init__(self, cluster: Cluster, disk: Path, driver: Driver, size: Size, seed: int) -> None:
        rng = random.Random(seed)
        self.breaking = Breaking(cluster, driver, rng)
        events = rng.sample(EVENTS, size.events)
        events.insert(len(events) // 2, "disk")
        self.left, self._disk, self._driver = events, disk, driver
        self._step, self._next = size.rows / (len(events) + 2), size.rows / (len(events) + 2)
        self.filled = 0

    def look(self, settled: int) -> None:
        """Break the next thing, if the batch is far enough."""
        self.breaking.resume()
        if not self.left or settled < self._next:
            return
        name = self.left.pop(0)
        print(f"chaos: at {settled} rows: {name}", file=sys.stderr)
        if name == "disk":
            self.filled += fill_disk(self._disk, self._driver)
        else:
            self.breaking.do(name)
        self._next += self._step


def _run(driver: Driver, look_on: Callable[[int], None]) -> float:
    """Until the output is whole; seconds."""
    began = time.monotonic()
    while not driver.is_done():
        if time.monotonic() - began > _PATIENCE_S:
            raise RuntimeError(f"{driver.output} is not whole after {_PATIENCE_S:g} s: {driver.settled()} rows")
        look_on(driver.settled())
        time.sleep(_LOOK_EVERY_S)
    return time.monotonic() - began


if __name__ == "__main__":
    print(json.dumps(measure(QUICK, 0), indent=2))
