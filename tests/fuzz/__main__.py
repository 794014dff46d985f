"""The storm of bytes on a real router of two relays: python -m tests.fuzz [--requests 100000] [--tls] [--seed N].

Prints what became of it: answers by status, time, and memory, descriptors and open connections of each process of the
router after the first tenth, which warms it up, and at the end. Exits with 1 where something was wrong.
"""

import argparse
import asyncio
import json
import os
import random
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.deployment import DeploymentSpec
from slurminfer.core.spec.model import ModelSpec
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.core.spec.router import RouterSpec

from .recorder import Recorder, record_of
from .sessions import Sessions
from .wire import Outcome, storm

WORKERS = 4
_DRIBBLERS = 32  # connections that send their head byte by byte all the while
_SETTLED_S = 13.0  # after which strangers are closed, and freed memory is seen


@contextmanager
def router(run: RunDirectory, log: Path) -> Iterator[psutil.Process]:
    """A router as a process."""
    with log.open("w", encoding="utf-8") as sink:
        argv = [sys.executable, "-m", "slurminfer.router", str(run.path)]
        process = subprocess.Popen(argv, stdout=sink, stderr=sink, env={**os.environ, "SLURMINFER_LOCAL": "1"})
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


class Watched:
    """The processes of a router, seen from outside."""

    def __init__(self, process: psutil.Process, client: httpx.AsyncClient) -> None:
        self._process, self._client = process, client

    async def look(self) -> dict[str, Any]:
        """Memory in MiB and descriptors of each process; connections, queues and requests in flight of all."""
        everyone = [self._process, *self._process.children(recursive=True)]
        metrics = (await self._client.get("/metrics")).text.splitlines()
        kinds = ("router_connections{", "router_worker_in_flight{", "router_queue")
        return {
            "rss_mib": [round(one.memory_info().rss / 2**20, 1) for one in everyone],
            "descriptors": [one.num_fds() for one in everyone],
            "gauges": [line for line in metrics if any(kind in line for kind in kinds) and "_bucket" not in line][:12],
        }


async def _dribble(port: int, context: ssl.SSLContext | None, ended: list[float]) -> None:
    """Send a head that never ends, a byte every half a second, until the server has enough of it; then again."""
    while True:
        began = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            ending = asyncio.create_task(reader.read())
            for byte in b"POST /v1/completions HTTP/1.1\r\nX: " + b"y" * 10_000:
                writer.write(bytes([byte]))
                if (await asyncio.wait([ending], timeout=0.5))[0]:
                    break
            writer.transport.abort()
            await ending
        except OSError:
            await asyncio.sleep(0.1)
        ended.append(time.monotonic() - began)


async def _run(arguments: argparse.Namespace, folder: Path) -> int:
    run = RunDirectory(folder / "run")
    run.create()
    settings = RouterSpec(port=0, relays=2, cpus_per_task=2, tls="self_signed" if arguments.tls else "off")
    model = ModelSpec(path="canary-model")
    run.write_spec(DeploymentSpec(name="fuzz", model=model, pool=(PoolSpec(name="stubs"),), router=settings))
    recorder = Recorder()
    for number in range(WORKERS):
        await recorder.serve(folder / f"{number}.sock")
        run.write_worker(record_of(f"canary-{number}", folder / f"{number}.sock"))
    with router(run, folder / "log") as process:
        while (record := run.read_router()) is None or record.url is None:
            await asyncio.sleep(0.05)
        headers = {"Authorization": f"Bearer {run.key()}"}
        async with httpx.AsyncClient(base_url=record.url, headers=headers, verify=False, timeout=60) as client:
            while (await client.get("/health")).status_code != 200:
                await asyncio.sleep(0.05)
            outcome = await _watched(arguments, int(record.url.rpartition(":")[2]), Watched(process, client), run.key())
    outcome.wrong += recorder.wrong[:10]
    outcome.wrong += [f"smuggled: {name}" for name in set(recorder.ids) - outcome.keyed][:10]
    log = (folder / "log").read_text(encoding="utf-8")
    outcome.wrong += ["a traceback in the log"] * ("Traceback" in log)
    print(f"reached workers: {len(recorder.ids)}; lines of log: {log.count(chr(10))}")
    print(*outcome.wrong, sep="\n")
    if outcome.wrong:
        print(log[-5000:])
    return 1 if outcome.wrong else 0


async def _watched(arguments: argparse.Namespace, port: int, watched: Watched, key: str) -> Outcome:
    context = None
    if arguments.tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sessions, ended = Sessions(arguments.seed, key), list[float]()
    dribblers = [asyncio.create_task(_dribble(port, context, ended)) for _ in range(_DRIBBLERS)]
    began = time.monotonic()
    warm = await storm(port, sessions, arguments.requests // 10, context)
    await asyncio.sleep(_SETTLED_S)
    print(json.dumps({"warm": await watched.look()}))
    outcome = await storm(port, sessions, arguments.requests - warm.requests, context)
    for task in dribblers:
        task.cancel()
    await asyncio.gather(*dribblers, return_exceptions=True)
    seconds = time.monotonic() - began - _SETTLED_S
    await asyncio.sleep(_SETTLED_S)
    print(json.dumps({"end": await watched.look()}))
    statuses = Counter(warm.statuses) + outcome.statuses
    requests, connections = warm.requests + outcome.requests, warm.sessions + outcome.sessions
    print(f"{requests} requests on {connections} connections in {seconds:.0f} s, seed {arguments.seed}")
    print(json.dumps({"answers": {str(status or "none"): count for status, count in sorted(statuses.items())}}))
    print(f"connections that took too long to send their request: {warm.slow + outcome.slow}")
    if ended:
        print(f"heads that never end: {len(ended)} connections, closed after {min(ended):.1f} to {max(ended):.1f} s")
    outcome.wrong += warm.wrong
    outcome.keyed = sessions.keyed
    return outcome


def main() -> int:
    """0 where nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--tls", action="store_true", help="with a self-signed certificate")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    with tempfile.TemporaryDirectory(prefix="slurminfer-fuzz-") as folder:
        return asyncio.run(_run(parser.parse_args(), Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
