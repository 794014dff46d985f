"""How our router is started: with every feature, behind gates, or of another checkout."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from slurminfer.core.net.identity import make_identity
from slurminfer.core.rundir import RunDirectory
from slurminfer.router.tenants.key_store import KeyStore

from .. import GIVEN
from .fleet import MODEL, POOL, Address, Records
from .targets import BEFORE, GATED, OURS, START_S, Starter, Target, running, wait_until_served

RELAYS = 2
_RELAYS = f"relays = {RELAYS}\n"
_SPEC = f"""
name = "bench"
model = {{path = "{MODEL}"}}
[[pool]]
name = "{POOL}"
[router]
port = 0
"""


@contextmanager
def ours(
    folder: Path, workers: list[Address], *, policy: str = "cache_aware", capacity: int = 1024, engine: str = "sglang"
) -> Iterator[Target]:
    """Our router with all of its features, before workers that it reaches by Unix sockets."""
    router = f'{_RELAYS}policy = "{policy}"\n'
    name = OURS if policy == "cache_aware" else f"{OURS}, {policy}"
    with _native(name, folder, workers, router, capacity, engine=engine) as target:
        yield target


def before(checkout: Path) -> Starter:
    """What starts the router of another checkout, with the policy and processes that it has by default."""

    @contextmanager
    def start(folder: Path, workers: list[Address], *, capacity: int = 1024) -> Iterator[Target]:
        with _native(BEFORE, folder, workers, "", capacity, checkout) as target:
            yield target

    return start


@contextmanager
def gated(folder: Path, workers: list[Address], *, capacity: int = 1024) -> Iterator[Target]:
    """Our router as on another node than the workers: each behind a gate, whose CPU time counts too."""
    with ExitStack() as gates, _native(GATED, folder, workers, _RELAYS, capacity, gates=gates) as target:
        yield target


@contextmanager
def _native(
    name: str, folder: Path, workers: list[Address], router: str, capacity: int,
    code: Path | None = None, gates: ExitStack | None = None, engine: str = "sglang",
) -> Iterator[Target]:  # fmt: skip
    home = folder / name.replace(", ", "-").replace(" ", "-")
    run = RunDirectory(home)
    run.create()
    run.spec_path.write_text(_SPEC + router, encoding="utf-8")
    records, beside = Records(run, capacity, engine), list[psutil.Process]()
    for number, worker in enumerate(workers):
        url, more = gates.enter_context(_gate(run, number, worker)) if gates else (None, [])
        records.add(number, worker, url)
        beside += more
    key = run.key() if code else KeyStore(run).add("bench", requests_per_minute=10**9, tokens_per_day=10**12)
    argv = [sys.executable, "-m", "slurminfer.router", str(home)]
    env = GIVEN | {"SLURMINFER_LOCAL": "1", "SLURMINFER_HOME": str(folder)}
    env |= {"PYTHONPATH": str(code.resolve() / "src")} if code else {}
    with running(argv, home / "log", env=env, cwd=home) as process:
        url = _announced(run, process, home / "log")
        target = Target(name, url, key, psutil.Process(process.pid), records, argv, beside)
        wait_until_served(target)
        yield target


@contextmanager
def _gate(run: RunDirectory, number: int, worker: Address) -> Iterator[tuple[str, list[psutil.Process]]]:
    identity = run.worker_identity_path(f"{POOL}-{number}", 0)
    make_identity(identity, POOL)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        argv = [sys.executable, "-m", "slurminfer.nodes.gate", "--fd", str(listener.fileno())]
        argv += ["--identity", str(identity), "--socket", str(worker.socket)]
        log = run.path / f"gate-{number}.log"
        with running(argv, log, env=GIVEN, pass_fds=[listener.fileno()]) as gate:
            yield "https://{}:{}".format(*listener.getsockname()), [psutil.Process(gate.pid)]


def _announced(run: RunDirectory, process: "subprocess.Popen[bytes]", log: Path) -> str:
    until = time.monotonic() + START_S
    while (record := run.read_router()) is None or record.url is None or record.pid != process.pid:
        if process.poll() is not None or time.monotonic() > until:
            said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"our router does not start: {record and record.reason}\n{said}")
        time.sleep(0.05)
    return record.url
