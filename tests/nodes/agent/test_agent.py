"""The life of a worker, with the native engine and a small model, and what kills it."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from slurminfer.core.records import WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec import parse_spec

from ...support.small_model import make_original
from ...support.waiting import eventually, has_ended
from .records import record_when

pytestmark = pytest.mark.process

SPEC = """
name = "life"
[model]
path = "{model}"
dtype = "float32"
[[pool]]
name = "cpu"
{pool}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    directory: Path = tmp_path_factory.mktemp("models") / "small"
    make_original(directory, context=4096)
    return directory


@pytest.fixture
def make_run(tmp_path, monkeypatch, model) -> Callable[..., RunDirectory]:
    def make(pool: str = "", path: Path = model) -> RunDirectory:
        monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
        run = RunDirectory.named("life")
        run.create()
        run.write_spec(parse_spec(SPEC.format(model=path, pool=pool)))
        return run

    return make


@pytest.fixture
def start_agent(tmp_path, agent_process) -> Callable[..., subprocess.Popen]:
    def start(run: RunDirectory, before: str = "pass") -> subprocess.Popen:
        return agent_process(run, before, tmp_path / "agent.log", {**os.environ, "SLURMINFER_LOCAL": "1"})

    return start


def credentials(run: RunDirectory) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {run.key()}"}, "timeout": 60}


def request(run: RunDirectory, **body) -> dict[str, Any]:
    """What httpx is to send for a completion."""
    spec = run.read_spec()
    body = {"model": spec.model_of(spec.pool[0]).served_name, "prompt": "One, two,", **body}
    return {"json": body, **credentials(run)}


def test_a_worker_becomes_ready_serves_drains_and_leaves_nothing(make_run, start_agent):
    run = make_run("max_running_requests = 3")
    agent = start_agent(run)
    record = record_when(run, WorkerState.READY)
    assert record.load_s is not None
    assert record.capacity == 3
    assert httpx.post(f"{record.url}/v1/completions", **request(run, max_tokens=2)).status_code == 200
    assert httpx.get(f"{record.url}/v1/models").status_code == 401
    agent.terminate()
    assert agent.wait(30) == 0
    gone = record_when(run, WorkerState.GONE)
    assert "SIGTERM" in gone.reason
    eventually(lambda: has_ended(record.pid))


def test_what_is_in_flight_finishes_while_draining(make_run, start_agent):
    run = make_run()
    agent = start_agent(run)
    record = record_when(run, WorkerState.READY)
    body = {"max_tokens": 1000, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
    with httpx.stream("POST", f"{record.url}/v1/completions", **request(run, **body)) as answer:
        lines = (line.removeprefix("data: ") for line in answer.iter_lines() if line)
        first = next(lines)
        os.kill(record.pid, signal.SIGSTOP)  # so that what is left is generated after the signal
        agent.terminate()
        record_when(run, WorkerState.DRAINING)
        os.kill(record.pid, signal.SIGCONT)
        metrics = httpx.get(f"{record.url}/metrics", **credentials(run)).text
        assert "\nslurminfer_engine_running_requests 1.0\n" in metrics
        *events, usage, done = first, *lines
    assert done == "[DONE]"
    assert json.loads(events[-1])["choices"][0]["finish_reason"] == "length"
    assert json.loads(usage)["usage"]["completion_tokens"] == 1000
    assert agent.wait(30) == 0


def test_a_killed_engine_makes_the_worker_gone_with_the_reason(make_run, start_agent):
    run = make_run()
    agent = start_agent(run)
    os.kill(record_when(run, WorkerState.READY).pid, signal.SIGKILL)
    assert "killed by SIGKILL" in record_when(run, WorkerState.GONE).reason
    assert agent.wait(10) == 1


def test_a_killed_agent_takes_its_engine_along(make_run, start_agent):
    run = make_run()
    agent = start_agent(run)
    engine = record_when(run, WorkerState.READY).pid
    agent.kill()
    eventually(lambda: has_ended(engine))


def test_an_engine_that_cannot_start_says_why(make_run, start_agent, tmp_path):
    run = make_run('extra_args = ["--no-such-flag"]')
    agent = start_agent(run)
    assert "--no-such-flag" in record_when(run, WorkerState.GONE).reason
    assert agent.wait(10) == 1
    said = (tmp_path / "agent.log").read_text()
    assert "error: engine exited with 2" in said
    assert "Traceback" not in said


def test_an_interpreter_that_is_not_there_is_named(make_run, start_agent):
    run = make_run('python = "/no/such/python"')
    start_agent(run)
    assert "/no/such/python" in record_when(run, WorkerState.GONE).reason


def test_a_port_lost_to_somebody_else_is_replaced(make_run, start_agent):
    # The first port is that of a socket that listens, as if another job had been quicker.
    before = (
        "import socket; from slurminfer.nodes.agent import head; real = head.hold_port; "
        "answers = iter([socket.create_server(('127.0.0.1', 0))]); "
        "head.hold_port = lambda a: next(answers, None) or real(a)"
    )
    run = make_run()
    start_agent(run, before)
    assert record_when(run, WorkerState.READY).url is not None


def test_an_engine_that_gives_no_token_in_time_is_given_up(make_run, start_agent):
    run = make_run('start_timeout = "00:00:01"\nextra_args = []\n')
    start_agent(run, "head.EngineProbe.generates = lambda probe: False")
    assert "start_timeout = '00:00:01'" in record_when(run, WorkerState.GONE).reason
