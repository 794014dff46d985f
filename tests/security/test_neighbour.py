"""A running deployment as another user of the machine sees it: no file is readable, nothing of it is told."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurminfer.core.rundir import RunDirectory

from ..integration.conftest import SLURMINFER
from ..support.small_model import make_original
from .neighbour import OPEN, Deployment, answering, as_neighbour, endpoint_of, processes_of, reachable, readable

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user"),
]
TOKEN = "hf_of_the_owner"
SPEC = """
name = "here"
[model]
path = "{model}"
[[pool]]
name = "one"
env = {{ HF_TOKEN = "{token}" }}
[[pool]]
name = "ranks"
tensor_parallel = 2
cpus_per_task = 2
[router]
port = 0
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that others could enter if slurminfer let them, as on a cluster; pytest's own are closed to all others."""
    parent = Path(tempfile.mkdtemp(prefix="slurminfer-test-", dir="/var/tmp"))
    parent.chmod(0o755)
    yield parent / "home"
    shutil.rmtree(parent)


@pytest.fixture
def deployment(home: Path, lend_library: Callable[[Path], None]) -> Iterator[Deployment]:
    """Two local workers that are ready, started under a umask that lets everybody read."""
    environ = {**os.environ, "SLURMINFER_HOME": str(home)}
    make = "from slurminfer.core.paths import make_home; make_home()"
    subprocess.run([sys.executable, "-c", make], env=environ, check=True, umask=0)
    lend_library(home)
    model = home.parent / "small"
    make_original(model)
    spec = home.parent / "spec.toml"
    spec.write_text(SPEC.format(model=model, token=TOKEN), encoding="utf-8")

    def run(*words: str) -> None:
        subprocess.run([*SLURMINFER, *words], env=environ, check=True, timeout=200, umask=0)

    run("serve", str(spec), "--local", "--wait")
    try:
        yield Deployment.of(processes_of(home))
    finally:
        run("stop", "here")


def test_nothing_is_readable_and_nothing_answers_but_health(deployment: Deployment, home: Path) -> None:
    run = RunDirectory(home / "runs" / "here")
    assert len(deployment.processes) >= 5, "a router, two agents and two engines"
    ours = [path for path in deployment.files if not path.startswith(("/usr", "/proc", str(home.parent / "small")))]
    assert as_neighbour(lambda: readable([str(home)], ours)) == []
    assert as_neighbour(lambda: reachable(deployment.sockets)) == []
    assert answering(deployment) == {endpoint_of(run): OPEN}

    secrets = [run.key(), TOKEN, *(worker.key for worker in run.read_workers())]
    assert all(secrets)
    assert not [line for line in deployment.lines if any(secret in line for secret in secrets)]
