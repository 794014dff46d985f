"""The life of a worker, with the native engine and a small model, and what kills it."""

import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from slurminfer.core.processes import setup
from slurminfer.core.records import EnergyRecord, OrderRecord, WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec

from ...support.forking import ForkedCode
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
def start_agent(tmp_path, agent_process) -> Callable[..., ForkedCode]:
    def start(run: RunDirectory, before: str = "pass") -> ForkedCode:
        return agent_process(run, before, tmp_path / "agent.log", {**os.environ, "SLURMINFER_LOCAL": "1"})

    return start


def engine_of(record: WorkerRecord, **headers: str) -> httpx.Client:
    """A client of the worker's engine."""
    assert record.socket is not None
    headers = headers or {"Authorization": f"Bearer {record.key}"}
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=record.socket), base_url="http://engine", headers=headers, timeout=60
    )


def completion(run: RunDirectory, **body) -> dict[str, Any]:
    """The body of a request."""
    spec = run.read_spec()
    return {"model": spec.model_of(spec.pool[0]).served_name, "prompt": "One, two,", **body}


def ports_of(pid: int) -> list[psutil._ntuples.pconn]:
    """The TCP sockets of a process and of those that it has started, that listen."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    found = [socket for process in processes for socket in process.net_connections("tcp")]
    return [socket for socket in found if socket.status == psutil.CONN_LISTEN]


def test_its_record_has_the_energy_that_its_node_lets_it_read(make_run, start_agent, tmp_path):
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in {"name": "package-0", "max_energy_range_uj": "900000000", "energy_uj": "0"}.items():
        (zone / name).write_text(text)
    path, share = str(zone.parent), 1 / (os.cpu_count() or 1)
    before = (
        "from pathlib import Path; from functools import partial; from slurminfer.nodes.agent import task; "
        f"task.EnergyMeter = partial(task.EnergyMeter, powercap=Path({path!r}), period_s=0.2)"
    )
    run = make_run("cpus_per_task = 1")
    agent = start_agent(run, before)
    record_when(run, WorkerState.READY)
    (zone / "energy_uj").write_text("40000000")
    eventually(lambda: (found := run.read_worker("cpu-0").energy) and found.cpu_j == 40.0 * share, "it was written")
    (zone / "energy_uj").write_text("50000000")
    agent.terminate()
    assert agent.wait(60) == 0
    assert run.read_worker("cpu-0").energy == EnergyRecord(cpu_j=50.0 * share)


def test_a_worker_becomes_ready_serves_drains_and_leaves_nothing(make_run, start_agent, monkeypatch):
    monkeypatch.setenv(setup.FAILED, "exit status 1 of: module load cuda")
    run = make_run("max_running_requests = 3")
    agent = start_agent(run)
    record = record_when(run, WorkerState.READY)
    assert record.load_s is not None
    assert record.capacity == 3
    assert record.remark.startswith("setup: exit status 1 of: module load cuda")
    assert record.url is None and ports_of(agent.pid) == []
    with engine_of(record) as engine:
        assert engine.post("/v1/completions", json=completion(run, max_tokens=2)).status_code == 200
    for wrong in ("Bearer wrong", f"Bearer {run.key()}"):  # not the clients' key either
        with engine_of(record, Authorization=wrong) as engine:
            assert engine.get("/v1/models").status_code == 401
    engine_socket = Path(record.socket or "")
    assert stat.S_IMODE(engine_socket.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(engine_socket.parent.stat().st_mode) == 0o700
    agent.terminate()
    assert agent.wait(30) == 0
    gone = record_when(run, WorkerState.GONE)
    assert "SIGTERM" in gone.reason
    eventually(lambda: has_ended(record.pid))
    assert not engine_socket.parent.exists()


def test_what_is_in_flight_finishes_while_draining(make_run, start_agent):
    run = make_run()
    agent = start_agent(run)
    record = record_when(run, WorkerState.READY)
    body = {"max_tokens": 1000, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
    with engine_of(record) as engine, engine.stream("POST", "/v1/completions", json=completion(run, **body)) as answer:
        lines = (line.removeprefix("data: ") for line in answer.iter_lines() if line)
        first = next(lines)
        os.kill(record.pid, signal.SIGSTOP)  # so that what is left is generated after the signal
        agent.terminate()
        draining = record_when(run, WorkerState.DRAINING)
        assert record.drain_until is None and draining.drain_until is not None
        assert 0 < draining.drain_until - draining.updated_at <= 20, "what the agent waits after SIGTERM"
        os.kill(record.pid, signal.SIGCONT)
        metrics = engine.get("/metrics").text
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


def test_an_engine_that_gives_no_token_in_time_is_given_up(make_run, start_agent):
    run = make_run('start_timeout = "00:00:01"\nextra_args = []\n')
    start_agent(run, "head.EngineProbe.generates = lambda probe: False")
    assert "start_timeout = '00:00:01'" in record_when(run, WorkerState.GONE).reason


def test_a_worker_that_is_told_to_end_drains_and_ends(make_run, start_agent, tmp_path):
    run = make_run()
    agent = start_agent(run)
    record_when(run, WorkerState.READY)
    run.write_order("cpu-0", OrderRecord(drain=True, reason="cpu-1 has taken over"))
    assert agent.wait(60) == 0
    record = run.read_worker("cpu-0")
    assert record is not None and (record.state, record.reason) == (WorkerState.GONE, "cpu-1 has taken over")


def test_a_worker_that_has_come_back_although_another_one_has_taken_over_ends_at_once(make_run, start_agent):
    run = make_run()
    run.write_order("cpu-0", OrderRecord(epoch=-1, stays_away=True, reason="cpu-1 takes over"))
    assert start_agent(run).wait(60) == 0
    record = run.read_worker("cpu-0")
    assert record is not None and (record.state, record.load_s) == (WorkerState.GONE, None)
