"""Another user takes the port of a killed worker or router: it gets no key and no prompt, and no client its answer.

The agent, its gate and the router are real processes; the engine computes nothing.
"""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from slurminfer.core.errors import BatchError
from slurminfer.core.net.identity import make_identity
from slurminfer.core.records import DeploymentRecord, JobRecord, RouterRecord, WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.batch.driver.driver import run_batch
from slurminfer.jobs.batch.driver.options import BatchOptions
from slurminfer.jobs.batch.endpoints.deployment import options_for
from slurminfer.jobs.batch.outputs.export import OutputOptions
from slurminfer.jobs.serve.status.status import look

from ..support.waiting import eventually, has_ended

pytestmark = pytest.mark.process

ENGINE = Path(__file__).parents[1] / "nodes" / "agent" / "fake_engine.py"
SPEC = """
name = "shared"
[model]
path = "/models/fake"
[[pool]]
name = "cpu"
python = "{python}"
[router]
port = 0
queue_timeout = 2  # so long a request waits for a worker to come back
"""
# On the node of the worker the router would take the engine's socket; it is told that it is on another one.
ROUTER = "import socket; socket.gethostname = lambda: 'elsewhere'; import slurminfer.router.__main__ as m; m.main()"
PROMPT = "a prompt that nobody else may read"
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"evil": "yes"}'


class Stranger:
    """Listens at a port that was ours, keeps what it is sent, and answers everything; with TLS as somebody else."""

    def __init__(self, port: int, identity: Path | None) -> None:
        self.heard = b""
        self.connections = 0
        self._tls = None
        if identity is not None:
            make_identity(identity, "stranger")
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(identity)
        self._server = socket.create_server(("", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(10)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            while data := connection.recv(65536):
                self.heard += data
                connection.sendall(ANSWER)
        except OSError:
            pass
        finally:
            connection.close()

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDirectory:
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    for name in ("SLURMINFER_LOCAL", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    directory = RunDirectory.named("shared")
    directory.create()
    python = directory.path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {ENGINE} "$@"\n')
    python.chmod(0o755)
    directory.write_spec(parse_spec(SPEC.format(python=python)))
    return directory


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    started = []

    def start(*argv: str, **env: str) -> "subprocess.Popen[bytes]":
        with (tmp_path / "programs.log").open("ab") as sink:
            started.append(
                subprocess.Popen([sys.executable, *argv], env={**os.environ, **env}, stdout=sink, stderr=sink)
            )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def ready(run: RunDirectory) -> WorkerRecord:
    def look_at() -> WorkerRecord | None:
        record = run.read_worker("cpu-0")
        return record if record is not None and record.state is WorkerState.READY else None

    record = eventually(look_at, "cpu-0 is ready")
    assert record is not None
    return record


def started_router(run: RunDirectory, start: Callable[..., "subprocess.Popen[bytes]"]) -> RouterRecord:
    start("-c", ROUTER, str(run.path))
    record = eventually(run.read_router, "the router listens")
    assert record is not None
    return record


def ask(run: RunDirectory, router: RouterRecord) -> httpx.Response:
    headers = {"Authorization": f"Bearer {run.key()}"}
    body = {"model": "fake", "prompt": PROMPT}
    return httpx.post(f"{router.url}/v1/completions", headers=headers, json=body, timeout=30, trust_env=False)


def port_of(url: str | None) -> int:
    assert url is not None
    return int(url.rpartition(":")[2])


def test_a_worker_on_another_node_answers_through_its_gate(run, start):
    start("-m", "slurminfer.nodes.agent", str(run.path), "cpu-0", SLURM_JOB_ID="7")
    ready(run)
    router = started_router(run, start)
    eventually(lambda: ask(run, router).status_code == 200)


@pytest.mark.parametrize("how", ["plain", "tls"])
def test_a_stranger_at_a_killed_worker_s_port_gets_nothing(run, start, tmp_path, how):
    agent = start("-m", "slurminfer.nodes.agent", str(run.path), "cpu-0", SLURM_JOB_ID="7")
    record = ready(run)
    agent.kill()
    eventually(lambda: has_ended(record.pid))
    identity = tmp_path / "alien.pem" if how == "tls" else None
    stranger = taken(record.url, identity)
    router = started_router(run, start)
    try:
        before = stranger.connections
        eventually(lambda: stranger.connections >= before + 2, "the router looks for the worker there")
        answer = ask(run, router)
        assert answer.status_code == 503 and b"evil" not in answer.content
        for secret in (record.key, run.key(), PROMPT, "Bearer"):
            assert secret.encode() not in stranger.heard
    finally:
        stranger.close()


def taken(url: str | None, identity: Path | None) -> Stranger:
    stranger = eventually(lambda: take(url, identity), "the port is free")
    assert stranger is not None
    return stranger


def take(url: str | None, identity: Path | None) -> Stranger | None:
    try:
        return Stranger(port_of(url), identity)
    except OSError:
        return None


@pytest.mark.parametrize("how", ["plain", "tls"])
def test_a_stranger_at_a_killed_router_s_ports_gets_nothing(run, start, tmp_path, how, monkeypatch):
    router = started_router(run, start)
    jobs = (JobRecord(id="999999@1.00", role="router"),)
    monkeypatch.setattr("slurminfer.jobs.serve.claim_holder.is_elsewhere", lambda record: False)
    os.kill(router.pid, signal.SIGKILL)
    eventually(lambda: has_ended(router.pid))
    run.claims.take(DeploymentRecord(launcher="local", claimed_by="1 on n1", claimed_at=0.0, jobs=jobs))
    identity = tmp_path / "alien.pem" if how == "tls" else None
    strangers = [taken(url, identity) for url in (router.url, router.private_url)]
    try:
        assert not look(run).router_answers
        (tmp_path / "in.jsonl").write_text(f'{{"prompt": "{PROMPT}"}}\n')
        options = options_for(run)
        with pytest.raises(BatchError, match="has not answered"):
            run_batch(
                BatchOptions(
                    inputs=[str(tmp_path / "in.jsonl")],
                    output=OutputOptions(path=tmp_path / "out.jsonl"),
                    patience_s=0.5,
                    **options,
                ),
                lambda state: None,
            )
        assert strangers[0].connections == 0 and strangers[1].connections > 0
        for stranger in strangers:
            for secret in (run.key(), PROMPT, "Bearer"):
                assert secret.encode() not in stranger.heard
    finally:
        for stranger in strangers:
            stranger.close()


def test_another_user_s_socket_in_a_record_is_not_connected_to(run, start, tmp_path):
    """Its folder is open to others, so that anybody could have put the socket there."""
    folder = tmp_path / "open"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(folder / "s"))
        foreign.listen()
        foreign.settimeout(0)
        run.write_worker(
            WorkerRecord(
                id="cpu-0", pool="cpu", engine="native", model="fake", state=WorkerState.READY, host="elsewhere",
                job="7", epoch=0, pid=1, updated_at=0.0, socket=str(folder / "s"), key="secret-of-engine",
            )
        )  # fmt: skip
        router = started_router(run, start)
        assert ask(run, router).status_code == 503
        with pytest.raises(BlockingIOError):
            foreign.accept()
