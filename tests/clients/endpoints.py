"""The two deployments that clients ask: a small model in the native engine, and an engine that plays a script."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.model import DEMO_NAME
from slurminfer.quant.models import resolve

from . import scripted_engine
from .environments import HOUSE

NAME = "clients"
_START_S = 120.0
# float32: lm-eval's figures are compared with those of transformers. A short context ends what a small model would go
# on with for long.
_SPEC = f"""
name = "{NAME}"
model = {{path = "demo", dtype = "float32", context_length = 2048}}
[[pool]]
name = "cpu"
[router]
port = 0
"""
_SCRIPTED_SPEC = f"""
name = "scripted"
model = {{path = "{scripted_engine.MODEL}"}}
[[pool]]
name = "{scripted_engine.POOL}"
[router]
port = 0
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a deployment is reached; `url` is without /v1."""

    url: str
    key: str
    model: str


@contextmanager
def native(home: Path) -> Iterator[tuple[Endpoint, Path]]:
    """`slurminfer serve SPEC --local` with the demo model, in float32, and where that model lies on the disk."""
    model = resolve("demo")
    (home / "models").mkdir(parents=True, mode=0o700)
    (home / "models" / model.name).symlink_to(model)
    spec = home / "spec.toml"
    spec.write_text(_SPEC, encoding="utf-8")
    _slurminfer(home, "serve", str(spec), "--local", "--wait")
    try:
        (said,) = json.loads(_slurminfer(home, "status", NAME, "--json"))
        key = RunDirectory(home / "runs" / NAME).key()
        yield Endpoint(said["endpoint"].removesuffix("/v1"), key, DEMO_NAME), model
    finally:
        _slurminfer(home, "stop", NAME)


@contextmanager
def scripted(home: Path) -> Iterator[Endpoint]:
    """A real router before the scripted engine, each in a process of its own."""
    run = RunDirectory(home / "runs/scripted")
    run.create()
    run.spec_path.write_text(_SCRIPTED_SPEC, encoding="utf-8")
    with (
        _running(home, "tests.clients.scripted_engine", run.path),
        _running(home, "slurminfer.router", run.path) as router,
    ):
        yield Endpoint(_announced(run, router), run.key(), scripted_engine.MODEL)


def _announced(run: RunDirectory, router: "subprocess.Popen[bytes]") -> str:
    """The router's address, once it has a worker. Raises RuntimeError where that takes too long."""
    until = time.monotonic() + _START_S
    while (
        (record := run.read_router()) is None
        or record.url is None
        or not (run.workers_path / "scripted-0.json").exists()
    ):
        if router.poll() is not None or time.monotonic() > until:
            raise RuntimeError("the router before the scripted engine does not start")
        time.sleep(0.05)
    return record.url


@contextmanager
def _running(home: Path, module: str, run: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with (home / f"{module}.log").open("wb") as log:
        argv = [sys.executable, "-m", module, str(run)]
        with subprocess.Popen(argv, stdout=log, stderr=log, cwd=HOUSE, env=_environment(home)) as process:
            try:
                yield process
            finally:
                process.terminate()


def _slurminfer(home: Path, *words: str) -> str:
    """What a command prints. Raises RuntimeError with what it said where it fails."""
    argv = [sys.executable, "-m", "slurminfer", *words]
    done = subprocess.run(argv, cwd=HOUSE, env=_environment(home), capture_output=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"slurminfer {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "SLURMINFER_HOME": str(home), "SLURMINFER_LOCAL": "1"}
