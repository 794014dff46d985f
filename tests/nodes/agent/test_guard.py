"""Processes that an engine has started, and that do not end with it, as vLLM's EngineCore: nothing of them lives on."""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from slurminfer.core.records import WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec

from ...support.forking import ForkedCode
from ...support.waiting import eventually, has_ended
from .records import record_when

pytestmark = pytest.mark.process


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDirectory:
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    run = RunDirectory.named("tree")
    run.create()
    python = run.path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("fake_engine.py")} "$@"\n')
    python.chmod(0o755)
    run.write_spec(parse_spec(f"name = 'tree'\n[model]\npath = '/m'\n[[pool]]\nname = 'cpu'\npython = '{python}'"))
    return run


@pytest.fixture
def worker(run, tmp_path, agent_process) -> Callable[[str], tuple[ForkedCode, int, int]]:
    """Starts a worker whose engine has a child, by the fake engine's words for where: agent, engine, child."""

    def start(place: str) -> tuple[ForkedCode, int, int]:
        env = {**os.environ, "SLURMINFER_LOCAL": "1", "FAKE_ENGINE_CHILD": place}
        agent = agent_process(run, "pass", tmp_path / "agent.log", env)
        record = record_when(run, WorkerState.READY)
        log = (run.logs_of("cpu-0") / "engine.0.0.log").read_text()
        found = re.search(r"child (\d+)\.", log)
        assert found is not None
        return agent, record.pid, int(found[1])

    return start


@pytest.mark.parametrize("place", ["group", "session"])
def test_what_a_killed_engine_has_started_is_killed(run, worker, place):
    agent, engine, child = worker(place)
    os.kill(engine, signal.SIGKILL)
    assert agent.wait(30) == 1
    assert "killed by SIGKILL" in record_when(run, WorkerState.GONE).reason
    eventually(lambda: has_ended(child))


@pytest.mark.parametrize("place", ["group", "session"])
def test_what_ignores_the_end_of_its_engine_is_killed(worker, place):
    agent, engine, child = worker(place)
    started = {process.pid for process in psutil.Process(agent.pid).children(recursive=True)}
    assert {engine, child} <= started
    agent.terminate()
    assert agent.wait(30) == 0
    eventually(lambda: all(map(has_ended, started)), "engine, child and guard have ended")


@pytest.mark.parametrize("place", ["group", "neither"])
def test_what_the_engine_of_a_killed_agent_has_started_is_killed(worker, place):
    agent, engine, child = worker(place)
    agent.kill()
    eventually(lambda: has_ended(engine) and has_ended(child))
