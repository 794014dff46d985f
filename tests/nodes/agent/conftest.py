"""Agents as processes, killed after the test whatever happens."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurminfer.core.rundir import RunDirectory

from ...support.forking import ForkedCode


@pytest.fixture
def agent_process() -> Iterator[Callable[..., ForkedCode]]:
    """Starts the agent of worker cpu-0 of a run; `before` is done in its process first."""
    started = []

    def start(run: RunDirectory, before: str, log: Path, env: dict[str, str]) -> ForkedCode:
        code = f"import sys; from slurminfer.nodes.agent import entry, head; {before}; sys.exit(entry.main())"
        started.append(ForkedCode(code, [str(run.path), "cpu-0"], env, log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
