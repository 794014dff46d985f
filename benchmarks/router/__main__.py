"""What a router costs an event of a stream: ours and sglang-router (Rust), against no router, before one upstream.

    python -m benchmarks.router [--sglang-router .venv-sglang-router/bin/python] [--before OTHER/CHECKOUT]

The upstream is a load generator that computes nothing (`benchmarks.router.streams`): at every step it writes one event
of about 250 bytes to each stream. Ways take turns, medians of the rounds:

- at an engine's pace (about 11,500 events/s with 64 and 256 streams, 200 with one): CPU time of the router's processes
  for each event, and which part of the events got through;
- at 20 steps a second: how old an event is when the client has it, against straight; and, of all streams asked for at
  once, over new connections, the time to the first event: the median, and the last one's;
- as fast as it goes: events/s. Many come in one read then.

CPU time is the figure that other programs on the machine disturb least. Prints a table and writes
benchmarks/results/router.json.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from slurminfer.core.net.identity import make_identity
from slurminfer.core.net.sockets import hold_port
from slurminfer.core.records import WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec import DeploymentSpec, ModelSpec, PoolSpec, RouterSpec

from .. import GIVEN
from .streams import Client, open_streams

PACES = {1: 200, 64: 180, 256: 45}  # steps/s by streams
SECONDS, CALM = 2.0, 20
_SOCKET = "worker.sock"
RESULT = Path(__file__).parents[1] / "results/router.json"


class Target:
    """An HTTP server that clients ask, and the process whose CPU time that costs."""

    def __init__(self, url: str, key: str = "", *processes: psutil.Process) -> None:
        self.url, self.key, self.processes = url, key, processes

    def cpu_s(self) -> float:
        """CPU time of the router's processes so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)


@contextmanager
def running(argv: list[str], **more: Any) -> Iterator["subprocess.Popen[str]"]:
    """A process that is terminated afterwards."""
    with subprocess.Popen(argv, encoding="utf-8", **more) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def upstream(path: Path) -> Iterator[Target]:
    """The load generator of streams.py, as a process of its own, at a port and at the Unix socket `path`."""
    with running([sys.executable, "-m", "benchmarks.router.streams", str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield Target(f"http://127.0.0.1:{int(process.stdout.readline())}")


@contextmanager
def gated(worker: Target, folder: Path) -> Iterator[Target]:
    """Run the router as on another node than the worker's: through a gate, whose CPU time counts too."""
    run = RunDirectory(folder)
    run.create()
    identity = run.worker_identity_path("streams-0", 0)
    make_identity(identity, "streams")
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        argv = [sys.executable, "-m", "slurminfer.nodes.gate", "--fd", str(listener.fileno())]
        argv += ["--identity", str(identity), "--socket", str(folder.parent / _SOCKET)]
        url = "https://{}:{}".format(*listener.getsockname())
        with (
            running(argv, env=GIVEN, stdout=subprocess.DEVNULL, pass_fds=[listener.fileno()]) as gate,
            ours(Target(url), folder, host="elsewhere") as router,
        ):
            yield Target(router.url, router.key, *router.processes, psutil.Process(gate.pid))


@contextmanager
def ours(worker: Target, folder: Path, code: Path | None = None, host: str = socket.gethostname()) -> Iterator[Target]:
    """Run the router of this checkout, or of the one in `code`, before one worker; it is ended afterwards."""
    run = RunDirectory(folder)
    run.create()
    run.write_spec(
        DeploymentSpec(name="streams", model=ModelSpec(path="s"), pool=(PoolSpec(),), router=RouterSpec(port=0))
    )
    run.write_worker(WorkerRecord(
        id="streams-0", pool="streams", engine="none", model="streams", state=WorkerState.READY, job="1",
        epoch=0, pid=1, updated_at=time.time(), capacity=1024, host=host, url=worker.url,
        socket=str(folder.parent / _SOCKET),
    ))  # fmt: skip
    env = GIVEN | {"SLURMINFER_LOCAL": "1"} | ({"PYTHONPATH": str(code / "src")} if code else {})
    argv = [sys.executable, "-m", "slurminfer.router", str(folder)]
    with running(argv, env=env, stderr=subprocess.DEVNULL, cwd=folder) as process:
        while (record := run.read_router()) is None or record.url is None:
            time.sleep(0.05)
        wait_for_health(record.url)
        yield Target(record.url, run.key(), psutil.Process(process.pid))


@contextmanager
def sglang_router(worker: Target, python: Path) -> Iterator[Target]:
    """sglang-router before the worker, by the interpreter of its own environment."""
    with hold_port("127.0.0.1") as port, hold_port("127.0.0.1") as metrics:
        ports = [str(held.getsockname()[1]) for held in (port, metrics)]
    argv = [
        str(python),
        "-m",
        "sglang_router.launch_router",
        "--host=127.0.0.1",
        "--port",
        ports[0],
        "--log-level=warn",
    ]
    argv += ["--prometheus-port", ports[1], "--policy=round_robin", "--worker-urls", worker.url]
    with running(argv, env=GIVEN, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{ports[0]}"
        wait_for_health(url)
        yield Target(url, "", psutil.Process(process.pid))


def wait_for_health(url: str) -> None:
    """Return when the router answers. Raises OSError after a minute."""
    until = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{url}/health").close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def ask(worker: Target, path: str) -> dict[str, Any]:
    """The JSON that the load generator answers a GET with."""
    with urllib.request.urlopen(worker.url + path) as answer:
        said: dict[str, Any] = json.load(answer)
    return said


async def measure(target: Target, worker: Target, streams: int) -> dict[str, float]:
    """One round of one target."""
    found: dict[str, float] = {}
    ask(worker, f"/steps/{CALM}")
    clients = await open_streams(target.url, target.key, streams)
    first = [client.first.result() for client in clients]
    found["first_s"], found["last_first_s"] = statistics.median(first), max(first)
    late: list[float] = []
    for client in clients:
        client.late_s = late
    await asyncio.sleep(SECONDS)
    for client in clients:
        client.late_s = None
    found["late_s"] = statistics.median(late)
    found["late_p99_s"] = statistics.quantiles(late, n=100, method="inclusive")[98]
    for name, pace in (("pace", PACES[streams]), ("flood", 0)):
        ask(worker, f"/steps/{pace}")
        await asyncio.sleep(0.5)
        events, cpu_s, seconds = await counted(target, clients)
        found[f"{name}_events_per_s"] = events / seconds
        found[f"{name}_cpu_us"] = 1e6 * cpu_s / events
    ask(worker, f"/steps/{CALM}")
    for client in clients:
        client.transport.abort()
    while ask(worker, "/streams")["streams"]:  # hung up all the way
        await asyncio.sleep(0.05)
    found["through"] = found["pace_events_per_s"] / (PACES[streams] * streams)
    return found


async def counted(target: Target, clients: list[Client]) -> tuple[int, float, float]:
    """Events, seconds of the router's CPUs, and seconds."""
    began, cpu_s, before = time.monotonic(), target.cpu_s(), sum(client.events for client in clients)
    await asyncio.sleep(SECONDS)
    events = sum(client.events for client in clients) - before
    return events, target.cpu_s() - cpu_s, time.monotonic() - began


def compare(targets: dict[str, Target], worker: Target, streams: int, rounds: int) -> dict[str, dict[str, Any]]:
    """All targets in turns, the order changing: each figure's median, and all runs."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in targets}
    for number in range(rounds):
        for name in list(targets) if number % 2 == 0 else reversed(targets):
            runs[name].append(uvloop.run(measure(targets[name], worker, streams)))
    return {
        name: {"median": {key: statistics.median(run[key] for run in found) for key in found[0]}, "runs": found}
        for name, found in runs.items()
    }


def show(results: dict[int, dict[str, dict[str, Any]]]) -> None:
    """Print medians as a table, latencies beside those without a router."""
    table = Table("streams", "way", "CPU µs/event", "got through", "added ms", "p99", "first ms", "all ms", "flood/s")
    for streams, targets in results.items():
        straight = targets["straight"]["median"]
        for name, all in targets.items():
            found = all["median"]
            added = [found[key] - straight[key] for key in ("late_s", "late_p99_s")]
            times = [f"{1000 * seconds:.2f}" for seconds in (*added, found["first_s"], found["last_first_s"])]
            shares = f"{found['pace_cpu_us']:.1f}", f"{found['through']:.3f}"
            table.add_row(str(streams), name, *shares, *times, f"{found['flood_events_per_s']:,.0f}")
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sglang-router", type=Path, metavar="PYTHON", help="an interpreter that has it")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="measure the router of another checkout too")
    parser.add_argument("--streams", type=int, nargs="+", choices=PACES, default=list(PACES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        worker = stack.enter_context(upstream(folder / _SOCKET))
        targets = {"straight": worker, "slurminfer": stack.enter_context(ours(worker, folder / "run"))}
        targets["slurminfer, gated"] = stack.enter_context(gated(worker, folder / "gated"))
        if given.before:
            before = given.before.resolve()
            targets["slurminfer before"] = stack.enter_context(ours(worker, folder / "before", before))
        if given.sglang_router:
            targets["sglang-router"] = stack.enter_context(sglang_router(worker, given.sglang_router.absolute()))
        results = {streams: compare(targets, worker, streams, given.rounds) for streams in given.streams}
    show(results)
    given.out.write_text(json.dumps({"cpus": os.cpu_count(), "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
