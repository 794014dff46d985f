"""What the router's HTTP costs by itself: its server and its pool in one process, before an upstream that only answers.

    python -m benchmarks.router.data_path             prints requests/s and CPU time of a request and of an event

Client, forwarder and upstream are three processes of this machine; the clients are few lines that count, no HTTP
library. Medians of several rounds.
"""

import argparse
import asyncio
import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import uvloop

from slurminfer.core.net.connection_guard import Guard, limits_of_process
from slurminfer.router.http.heads import request_head
from slurminfer.router.http.messages import Head, Pool, Reply, Request, Whole
from slurminfer.router.http.pool import SocketPool
from slurminfer.router.http.server import Server
from slurminfer.router.relay.supervisor.pages import pass_on

_BODY = b'{"model":"m","prompt":"' + b"word " * 60 + b'","max_tokens":16}'
_REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: router\r\nAuthorization: Bearer key\r\nUser-Agent: bench\r\n"
    b"Accept: */*\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)
_ANSWER_BODY = b'{"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":"' + b" word" * 16 + b'"}]}'
_ANSWER = b"HTTP/1.1 200 OK\r\nServer: uvicorn\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_ANSWER_BODY),
    _ANSWER_BODY,
)
_EVENT = b'data: {"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":" word","logprobs":null}]}\n\n'
_CHUNK = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_LAST = b"0\r\n\r\n"
_SIZE = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Forward:
    """A handler that passes everything on."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def admit(self, head: Head) -> Whole | None:
        """Let everybody in."""
        head.tenant = "bench"
        return None

    def handle(self, request: Request, reply: Reply) -> None:
        """Send it to the upstream."""
        head = request.head
        message = request_head(
            head.method, head.target, head.headers, key="k", body_length=len(request.body), request_id=head.id
        )
        reply.run(pass_on(self._pool, message, request.body, reply, "the upstream"))


async def forward(folder: Path) -> None:
    """Serve at `folder`/front before `folder`/back, on TCP; the port stands in the file `port`."""
    server = Server(Forward(SocketPool(folder / "back")), Guard(limits_of_process()))
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    await server.listen(sock)
    server.start_clock()
    print(sock.getsockname()[1], flush=True)
    await asyncio.Event().wait()


class Upstream(asyncio.Protocol):
    """Answers each request at once, or with a stream of so many events when its path says /N/."""

    def __init__(self, steps: set["Upstream"]) -> None:
        self._steps, self._got, self.left = steps, b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer when the request is there."""
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        size = _SIZE.search(head)
        if not end or size is None or len(body) < int(size[1]):
            return
        self._got = b""
        events = re.match(rb"POST /(\d+)/", head)
        if events is None:
            self.transport.write(_ANSWER)
            return
        self.left = int(events[1])
        self.transport.write(_STREAM)
        self._steps.add(self)

    def step(self) -> None:
        """Write one event."""
        self.left -= 1
        self.transport.write(_CHUNK if self.left else _CHUNK + _LAST)
        if not self.left:
            self._steps.discard(self)


async def upstream(folder: Path) -> None:
    """Answer at `folder`/back; every stream gets an event each 10 ms, as from an engine."""
    streams: set[Upstream] = set()
    await asyncio.get_running_loop().create_unix_server(lambda: Upstream(streams), str(folder / "back"))
    print("ready", flush=True)
    while True:
        await asyncio.sleep(0.01)
        for stream in list(streams):
            stream.step()


class Client(asyncio.Protocol):
    """Sends one request after the other and counts whole answers, or the bytes of streams."""

    def __init__(self, request: bytes, rounds: int) -> None:
        self._request, self._left, self._got = request, rounds, b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Look for the end of the answer."""
        self._got = self._got + data if len(self._got) < 4096 else self._got[-16:] + data
        if self._got.endswith((_LAST, _ANSWER_BODY)):
            self._got, self._left = b"", self._left - 1
            if self._left:
                self.transport.write(self._request)
            else:
                self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        self.failed += bool(self._left)
        if not self.done.done():
            self.done.set_result(None)


async def measure(port: int, pid: int, request: bytes, clients: int, rounds: int) -> tuple[float, float]:
    """Answers a second, and CPU microseconds of the process `pid` for each."""
    loop = asyncio.get_running_loop()
    before, began = _cpu(pid), time.perf_counter()
    made = [
        (await loop.create_connection(lambda: Client(request, rounds), "127.0.0.1", port))[1] for _ in range(clients)
    ]
    await asyncio.gather(*(client.done for client in made))
    took, used = time.perf_counter() - began, _cpu(pid) - before
    if failed := sum(client.failed for client in made):
        raise RuntimeError(f"{failed} clients lost their connection")
    return clients * rounds / took, used / (clients * rounds) * 1e6


def _cpu(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run one of the processes, or all of them and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["forward", "upstream"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.part == "forward":
        uvloop.run(forward(given.folder))
    elif given.part == "upstream":
        uvloop.run(upstream(given.folder))
    else:
        _compare(given.rounds)


def _compare(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        processes = []
        for part in ("upstream", "forward"):
            command = [sys.executable, "-m", "benchmarks.router.data_path", "--part", part, "--folder", name]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, encoding="ascii"))
            stack.callback(process.terminate)
            assert process.stdout is not None
            said = process.stdout.readline()
            processes.append(process)
        port, pid = int(said), processes[1].pid
        stream = _REQUEST.replace(b"/v1/", b"/200/v1/")
        uvloop.run(measure(port, pid, _REQUEST, 8, 200))
        for label, request, clients, each, parts in (
            ("whole answers, 1 connection", _REQUEST, 1, 3000, 1),
            ("whole answers, 32 connections", _REQUEST, 32, 800, 1),
            ("whole answers, 256 connections", _REQUEST, 256, 100, 1),
            ("events, 128 streams of 200", stream, 128, 2, 200),
        ):
            got = [uvloop.run(measure(port, pid, request, clients, each)) for _ in range(rounds)]
            rate, cpu = (statistics.median(values) for values in zip(*got, strict=True))
            print(f"{label:32} {rate * parts:9.0f} /s {cpu / parts:8.1f} us of CPU each", flush=True)


if __name__ == "__main__":
    main()
