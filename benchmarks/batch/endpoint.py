"""The stub endpoint as a process, and how many requests/s it can answer."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvloop

from .. import GIVEN
from .commands import pinned
from .stub.__main__ import MARK, MODEL

_START_S = 30.0
_CONNECTIONS = 128
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Stub:
    """A stub endpoint that serves."""

    port: int

    @property
    def url(self) -> str:
        """For --endpoint."""
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self) -> dict[str, Any]:
        """`first_at`, Unix time of the first POST (0: none yet), and `posts`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/asked", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def stub(folder: Path, cpu: int | None) -> Iterator[Stub]:
    """A new stub endpoint on one CPU, ended afterwards."""
    port_file = folder / f"stub-{time.monotonic_ns()}.port"
    argv = pinned([sys.executable, "-m", "benchmarks.batch.stub", str(port_file)], cpu)
    with subprocess.Popen(argv, env=GIVEN) as process:
        try:
            until = time.monotonic() + _START_S
            while not (port_file.exists() and port_file.read_text(encoding="utf-8").endswith("\n")):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError("the stub endpoint does not start")
                time.sleep(0.02)
            yield Stub(int(port_file.read_text(encoding="utf-8")))
        finally:
            process.kill()


class _Loop(asyncio.Protocol):
    """A connection that sends the same request as soon as the last is answered; answers all have the same length."""

    def __init__(self, request: bytes) -> None:
        self._request, self._size, self._got = request, 0, 0
        self.answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._size:
            head = data.index(_HEAD_END)
            length = int(data[:head].rpartition(b"Content-Length: ")[2].partition(b"\r")[0])
            self._size = head + len(_HEAD_END) + length
        self._got += len(data)
        if self._got >= self._size:
            self._got -= self._size
            self.answered += 1
            self.transport.write(self._request)


async def _ask(port: int, seconds: float) -> float:
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"{MARK.decode()}1234567: {'what is it? ' * 5}"}]}
    encoded = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: stub\r\nContent-Length: {len(encoded)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: _Loop(head.encode() + encoded), "127.0.0.1", port))[1]
        for _ in range(_CONNECTIONS)
    ]
    await asyncio.sleep(0.2)
    before, began = sum(one.answered for one in made), time.monotonic()
    await asyncio.sleep(seconds)
    done, took_s = sum(one.answered for one in made) - before, time.monotonic() - began
    for one in made:
        one.transport.abort()
    return done / took_s


def limit(port: int, seconds: float) -> float:
    """Requests/s that the stub endpoint answers to a client that does nothing else, from this process."""
    return uvloop.run(_ask(port, seconds))


if __name__ == "__main__":
    print(limit(int(sys.argv[1]), float(sys.argv[2])))
