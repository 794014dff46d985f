"""The routers that are compared: ours, the compiled ones, and nginx as the ceiling of what a proxy can do."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from slurminfer.core.net.sockets import hold_port
from slurminfer.core.rundir import RunDirectory
from slurminfer.router.tenants.key_store import KeyStore

from .. import GIVEN
from .fleet import MODEL, POOL, Address, Records

ROOT = Path(__file__).parents[2]
OURS = "slurminfer"
PEERS = ("sglang-router", "smg", "vllm-router")
CEILING = "nginx"
STRAIGHT = "straight"
BEFORE = "slurminfer before"
RELAYS = 2
_START_S = 90.0
_SPEC = f"""
name = "bench"
model = {{path = "{MODEL}"}}
[[pool]]
name = "{POOL}"
[router]
port = 0
"""


@dataclass(eq=False)
class Target:
    """An HTTP server that clients ask: a router, or a worker without one."""

    name: str
    url: str
    key: str = ""
    root: psutil.Process | None = None
    records: Records | None = None  # of the workers, where it is our router
    command: list[str] = field(default_factory=list)

    @property
    def processes(self) -> list[psutil.Process]:
        """All processes of the router."""
        return [self.root, *self.root.children(recursive=True)] if self.root else []

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


@contextmanager
def ours(
    folder: Path, workers: list[Address], *, policy: str = "cache_aware", capacity: int = 1024
) -> Iterator[Target]:
    """Our router with all of its features, before workers that it reaches by Unix sockets."""
    router = f'relays = {RELAYS}\npolicy = "{policy}"\n'
    name = OURS if policy == "cache_aware" else f"{OURS}, {policy}"
    with _native(name, folder, workers, router, capacity) as target:
        yield target


def before(checkout: Path) -> Starter:
    """What starts the router of another checkout, with the policy and processes that it has by default."""

    @contextmanager
    def start(folder: Path, workers: list[Address], *, capacity: int = 1024) -> Iterator[Target]:
        with _native(BEFORE, folder, workers, "", capacity, checkout) as target:
            yield target

    return start


@contextmanager
def _native(
    name: str, folder: Path, workers: list[Address], router: str, capacity: int, code: Path | None = None
) -> Iterator[Target]:
    home = folder / name.replace(", ", "-").replace(" ", "-")
    run = RunDirectory(home)
    run.create()
    run.spec_path.write_text(_SPEC + router, encoding="utf-8")
    records = Records(run, capacity)
    for number, worker in enumerate(workers):
        records.add(number, worker)
    key = run.key() if code else KeyStore(run).add("bench", requests_per_minute=10**9, tokens_per_day=10**12)
    argv = [sys.executable, "-m", "slurminfer.router", str(home)]
    env = GIVEN | {"SLURMINFER_LOCAL": "1", "SLURMINFER_HOME": str(folder)}
    env |= {"PYTHONPATH": str(code.resolve() / "src")} if code else {}
    with running(argv, home / "log", env=env, cwd=home) as process:
        url = _announced(run, process, home / "log")
        target = Target(name, url, key, psutil.Process(process.pid), records, argv)
        wait_until_served(target)
        yield target


def peer_command(name: str, urls: list[str], port: int, metrics: int) -> list[str]:
    """How a compiled router is started: cache_aware, with its key, and every other option as its project sets it."""
    binary = ROOT / f".venv-{name}/bin"
    command = {
        "sglang-router": [str(binary / "python"), "-m", "sglang_router.launch_router"],
        "smg": [str(binary / "smg"), "launch"],
        "vllm-router": [str(binary / "vllm-router")],
    }[name]
    level = "warning" if name == "vllm-router" else "warn"
    return [
        *command, "--host=127.0.0.1", f"--port={port}", "--policy=cache_aware", f"--prometheus-port={metrics}",
        f"--log-level={level}", f"--api-key={PEERS_KEY}", "--worker-startup-check-interval=1", "--worker-urls", *urls,
    ]  # fmt: skip


PEERS_KEY = "bench-key-of-peers"


def peer(name: str) -> Starter:
    """What starts a compiled router."""

    @contextmanager
    def start(folder: Path, workers: list[Address], *, capacity: int = 1024) -> Iterator[Target]:
        with hold_port("127.0.0.1") as port, hold_port("127.0.0.1") as metrics:
            ports = [held.getsockname()[1] for held in (port, metrics)]
        argv = peer_command(name, [worker.url for worker in workers], *ports)
        with running(argv, folder / f"{name}.log", env=GIVEN) as process:
            target = Target(name, f"http://127.0.0.1:{ports[0]}", PEERS_KEY, psutil.Process(process.pid), None, argv)
            wait_until_served(target)
            yield target

    return start


_NGINX = """
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log stderr error; worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; client_max_body_size 64m; client_body_buffer_size 1m;
  keepalive_requests 1000000;
  upstream workers {{ {servers} keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://workers; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, workers: list[Address], *, capacity: int = 1024) -> Iterator[Target]:
    """nginx as a plain proxy: no key, no policy, connections to workers kept."""
    home = folder / CEILING
    home.mkdir()
    with hold_port("127.0.0.1") as held:
        port = held.getsockname()[1]
    servers = " ".join(f"server 127.0.0.1:{worker.port};" for worker in workers)
    (home / "nginx.conf").write_text(_NGINX.format(folder=home, port=port, servers=servers), encoding="utf-8")
    argv = [shutil.which("nginx") or "nginx", "-p", str(home), "-c", str(home / "nginx.conf")]
    with running(argv, home / "log", env=GIVEN) as process:
        target = Target(CEILING, f"http://127.0.0.1:{port}", "", psutil.Process(process.pid), None, argv)
        wait_until_served(target)
        yield target


@contextmanager
def straight(folder: Path, workers: list[Address], *, capacity: int = 1024) -> Iterator[Target]:
    """No router: the first worker itself."""
    yield Target(STRAIGHT, workers[0].url)


def available(names: list[str]) -> dict[str, Starter]:
    """What starts each of these routers; those that are not installed are left out, with a word."""
    found: dict[str, Starter] = {}
    for name in names:
        if name == OURS:
            found[name] = ours
        elif name == STRAIGHT:
            found[name] = straight
        elif name == CEILING:
            found |= {name: nginx} if shutil.which("nginx") else {}
        elif (ROOT / f".venv-{name}").exists():
            found[name] = peer(name)
        if name not in found:
            print(f"{name} is not installed and left out", file=sys.stderr)
    return found


def wait_until_served(target: Target) -> None:
    """Return when a request is answered through the router. Raises RuntimeError after a while."""
    until = time.monotonic() + _START_S
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


def _announced(run: RunDirectory, process: "subprocess.Popen[bytes]", log: Path) -> str:
    until = time.monotonic() + _START_S
    while (record := run.read_router()) is None or record.url is None or record.pid != process.pid:
        if process.poll() is not None or time.monotonic() > until:
            said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"our router does not start: {record and record.reason}\n{said}")
        time.sleep(0.05)
    return record.url


def end(process: psutil.Process) -> None:
    """kill -9, unless it has gone already."""
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
