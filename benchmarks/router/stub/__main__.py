"""Stub workers as a process: python -m benchmarks.router.stub < CONFIGURATION (a line of JSON, see `Configuration`).

Prints the TCP ports, one a line, and serves until it is killed. All workers of a process share one thread.
"""

import asyncio
import gc
import socket
import sys

import msgspec
import uvloop

from .connection import Connection
from .engine import Costs
from .worker import Mode, StubWorker


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What a process serves."""

    sockets: list[str]  # Unix sockets, one for each worker
    ports: list[int] = []  # TCP ports on loopback for the same workers; any free ones by default
    model: str = "stub"
    costs: Costs = Costs()
    context: int = 131_072  # tokens of the longest prompt; a longer one gets 400
    mode: Mode = Mode.GOOD


async def serve(configuration: Configuration) -> None:
    """Serve until cancelled."""
    loop = asyncio.get_running_loop()
    ports = configuration.ports or [0] * len(configuration.sockets)
    for path, port in zip(configuration.sockets, ports, strict=True):
        worker = StubWorker(configuration.model, configuration.costs, configuration.context, configuration.mode)
        sock = socket.create_server(("127.0.0.1", port), backlog=4096)
        await loop.create_server(lambda worker=worker: Connection(worker), sock=sock, backlog=4096)  # type: ignore[misc]
        await loop.create_unix_server(lambda worker=worker: Connection(worker), path, backlog=4096)  # type: ignore[misc]
        print(sock.getsockname()[1], flush=True)
    gc.freeze()
    await loop.create_future()


if __name__ == "__main__":
    uvloop.run(serve(msgspec.json.decode(sys.stdin.buffer.readline(), type=Configuration)))
