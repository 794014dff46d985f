"""A command line to drive, and deployments that are stopped whatever happens."""

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest

from slurminfer.quant.models import resolve
from slurminfer.slurm.sandbox import Sandbox

from ..support.commands import Commands

HOUSE = Path(__file__).parents[2]
SLURMINFER = [sys.executable, "-m", "slurminfer"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class User:
    """Somebody at a terminal: with a home of slurminfer's, and a way to run its commands."""

    home: Path
    execute: Run
    clients: list[openai.OpenAI] = field(default_factory=list)

    def slurminfer(self, *words: str | Path, timeout_s: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
        return self.execute([*map(str, words)], timeout_s=timeout_s, env=env)

    def ok(self, *words: str | Path, timeout_s: float = 120, **env: str) -> str:
        """The output of a command that must succeed."""
        done = self.slurminfer(*words, timeout_s=timeout_s, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self, name: str) -> dict:
        return json.loads(self.ok("status", name, "--json"))[0]

    def client(self, name: str) -> openai.OpenAI:
        key = (self.home / "runs" / name / "key").read_text().strip()
        client = openai.OpenAI(base_url=self.status(name)["endpoint"], api_key=key, max_retries=0)
        self.clients.append(client)
        return client


@pytest.fixture(scope="session")
def demo_model() -> Path:
    return resolve("demo")


@pytest.fixture(scope="session")
def commands_here() -> Iterator[Commands]:
    commands = Commands()
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def commands_there(sandbox: Sandbox, ordinary_user: str) -> Iterator[Commands]:
    """Of the ordinary user, on the head node of the sandbox."""
    checkout = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}  # the one that is tested
    commands = Commands(lambda argv: sandbox.argv_as(ordinary_user, argv, checkout), pwd.getpwnam(ordinary_user).pw_uid)
    yield commands
    commands.close()


@pytest.fixture
def user(
    tmp_path: Path, demo_model: Path, lend_library: Callable[[Path], None], commands_here: Commands
) -> Iterator[User]:
    """Whoever runs the tests, on this machine, without Slurm."""
    home = tmp_path / "home"
    lend_library(home)
    (home / "models").mkdir(parents=True)
    (home / "models" / demo_model.name).symlink_to(demo_model)

    def execute(words: list[str], *, timeout_s: float, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SLURMINFER_HOME": str(home), **env}
        return commands_here.run(words, environment, HOUSE, timeout_s)

    here = User(home, execute)
    yield here
    stop_all(here)


@pytest.fixture
def cluster_user(
    sandbox: Sandbox,
    ordinary_user: str,
    shared: Path,
    demo_model: Path,
    lend_library: Callable[[Path], None],
    commands_there: Commands,
) -> Iterator[User]:
    """An ordinary user on the head node of the sandbox, with the demo model fetched already."""
    home = shared / "home"
    lend_library(home)
    shutil.copytree(demo_model, home / "models" / demo_model.name)
    sandbox.give(ordinary_user, home)

    def execute(words: list[str], *, timeout_s: float, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return commands_there.run(words, {"SLURMINFER_HOME": str(home), **env}, shared, timeout_s)

    here = User(home, execute)
    yield here
    stop_all(here)


def stop_all(user: User) -> None:
    for client in user.clients:
        client.close()
    runs = user.home / "runs"
    for run in runs.iterdir() if runs.exists() else ():
        user.ok("stop", run.name)
