"""The routers that ours is compared with, and nginx as the ceiling of what a proxy can do."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from slurminfer.core.net.sockets import hold_port

from .. import GIVEN
from .fleet import Address
from .ours import gated, ours
from .targets import CEILING, GATED, OURS, STRAIGHT, Starter, Target, running, wait_until_served

ROOT = Path(__file__).parents[2]
PEERS_KEY = "bench-key-of-peers"


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
        elif name == GATED:
            found[name] = gated
        elif name == CEILING:
            found |= {name: nginx} if shutil.which("nginx") else {}
        elif (ROOT / f".venv-{name}").exists():
            found[name] = peer(name)
        if name not in found:
            print(f"{name} is not installed and left out", file=sys.stderr)
    return found
