"""Agents as processes, killed after the test whatever happens."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurminfer.core.rundir import RunDirectory


@pytest.fixture
def agent_process() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts the agent of worker cpu-0 of a run; `before` is done in its process first."""
    started = []

    def start(run: RunDirectory, before: str, log: Path, env: dict[str, str]) -> subprocess.Popen:
        code = f"import sys; from slurminfer.nodes.agent import entry, head; {before}; sys.exit(entry.main())"
        argv = [sys.executable, "-c", code, str(run.path), "cpu-0"]
        with log.open("wb") as sink:
            started.append(subprocess.Popen(argv, stdout=sink, stderr=sink, env=env))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
