"""What clients ask: a router or a worker, and the processes behind it."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from .fleet import Address, Records

OURS = "slurminfer"
PEERS = ("sglang-router", "smg", "vllm-router")
CEILING = "nginx"
STRAIGHT = "straight"
BEFORE = "slurminfer before"
GATED = "slurminfer, gated"
START_S = 90.0


@dataclass(eq=False)
class Target:
    """An HTTP server that clients ask: a router, or a worker without one."""

    name: str
    url: str
    key: str = ""
    root: psutil.Process | None = None
    records: Records | None = None  # of the workers, where it is our router
    command: list[str] = field(default_factory=list)
    beside: list[psutil.Process] = field(default_factory=list)  # gates, whose CPU time counts too

    @property
    def processes(self) -> list[psutil.Process]:
        """All processes of the router."""
        return [self.root, *self.root.children(recursive=True), *self.beside] if self.root else []

    def cpu_s(self) -> float:
        """CPU time of the router's processes so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)

    def rss_mib(self) -> float:
        """Resident memory of the router's processes together."""
        return sum(process.memory_info().rss for process in self.processes) / (1 << 20)

    def relays(self) -> list[psutil.Process]:
        """The relay processes of our router."""
        return [process for process in self.processes if "slurminfer.router.relay" in process.cmdline()]


class Starter(Protocol):
    """Starts a router before workers. `capacity`: requests that each computes at once; only ours is told."""

    def __call__(self, folder: Path, workers: list[Address], *, capacity: int = 1024) -> AbstractContextManager[Target]:
        """The router runs while the context lasts."""


@contextmanager
def running(argv: list[str], log: Path, **more: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that writes into a file, ended afterwards."""
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out, **more) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_served(target: Target) -> None:
    """Return when a request is answered through the router. Raises RuntimeError after a while."""
    until = time.monotonic() + START_S
    body = b'{"model": "stub", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}'
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {target.key}"}
    while True:
        request = urllib.request.Request(f"{target.url}/v1/chat/completions", body, headers)
        try:
            urllib.request.urlopen(request, timeout=10).close()
            return
        except OSError as error:
            said = error.read()[:300] if isinstance(error, urllib.error.HTTPError) else b""
            if time.monotonic() > until:
                raise RuntimeError(f"{target.name} does not serve: {error} {said!r}; {target.command}") from error
        time.sleep(0.2)


def end(process: psutil.Process) -> None:
    """kill -9, unless it has gone already."""
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
