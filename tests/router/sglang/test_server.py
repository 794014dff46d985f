"""The router with `backend = "sglang"` before stub workers; a fake stands for sglang-router."""

import os
import signal
import socket
import ssl
import subprocess
import sys

import httpx
import psutil
import pytest

from slurminfer.core.errors import RouterError
from slurminfer.core.net.identity import client_context
from slurminfer.core.records import WorkerState
from slurminfer.router.sglang.installed import VERSION

from ...support.waiting import eventually, has_ended
from .conftest import environment
from .fake_sglang_router import IS_A_FAKE

pytestmark = pytest.mark.process


@pytest.fixture
def two(empty, python):
    empty.configure(backend="sglang", python=python)
    for worker_id in ("cpu-0", "cpu-1"):
        empty.add(worker_id)
    empty.start_router()
    eventually(lambda: listed(empty) == 2)
    return empty


def listed(deployment) -> int:
    """How many workers the fake has."""
    try:
        return len(deployment.http.get("/workers").json()["workers"])
    except httpx.TransportError:
        return 0


def pid_of_fake(deployment) -> int:
    return int(deployment.http.get("/workers").headers[IS_A_FAKE])


def private(deployment, key: str = "") -> httpx.Client:
    """A client at the port for our own commands."""
    run = deployment.run
    context: ssl.SSLContext = client_context(run.router_identity_path)
    headers = {"Authorization": f"Bearer {key or run.key()}"}
    return httpx.Client(base_url=run.read_router().private_url, verify=context, headers=headers, timeout=20)


def test_requests_reach_a_worker_with_its_own_key(two):
    answer = two.chat()
    assert answer.json()["choices"][0]["message"]["content"] == "Hello from the stub"
    (seen,) = [request for stub in two.stubs for request in stub.requests]
    assert seen[1]["authorization"] in {f"Bearer key-of-{stub.id}" for stub in two.stubs}


@pytest.mark.parametrize("state", [WorkerState.DRAINING, WorkerState.GONE])
def test_a_worker_that_drains_or_has_gone_is_taken_out(two, state):
    two.stubs[0].publish(state)
    eventually(lambda: listed(two) == 1)
    assert two.chat().status_code == 200
    assert [len(stub.requests) for stub in two.stubs] == [0, 1]


def test_a_worker_that_does_not_answer_is_taken_out_and_comes_back(two):
    two.stubs[0].health = 503
    eventually(lambda: listed(two) == 1)
    two.stubs[0].health = 200
    eventually(lambda: listed(two) == 2)


def test_sglang_router_is_started_again_and_gets_its_workers(two):
    before = pid_of_fake(two)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: has_ended(before) and listed(two) == 2)
    assert pid_of_fake(two) != before
    assert two.chat().status_code == 200


def test_own_commands_see_the_workers_with_their_requests_in_flight(two):
    two.stubs[0].stepwise = two.stubs[1].stepwise = True
    with (
        private(two) as client,
        two.http.stream("POST", "/v1/chat/completions", json={"messages": [], "stream": True}),
    ):
        eventually(lambda: sum(worker["in_flight"] for worker in workers(client)) == 1)
        for stub in two.stubs:
            stub.go.release(4)
        assert {worker["id"] for worker in workers(client)} == {"cpu-0", "cpu-1"}


def workers(client):
    return client.get("/workers").json()["workers"]


def test_own_commands_generate_through_sglang_router(two):
    with private(two) as client:
        assert client.post("/v1/chat/completions", json={"messages": []}).status_code == 200
        body = {"messages": [], "stream": True}
        assert client.post("/v1/chat/completions", json=body).text.endswith("data: [DONE]\n\n")
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["stub-model"]
    with private(two, key="wrong") as client:
        assert client.post("/v1/chat/completions", json={"messages": []}).status_code == 401
        assert client.get("/workers").status_code == 401


def test_the_key_is_in_no_command_line(two):
    words = psutil.Process(pid_of_fake(two)).cmdline()
    assert not any(two.run.key() in word for word in words)


def test_sglang_router_ends_with_the_router(two):
    pid = pid_of_fake(two)
    two.stop_router()
    assert has_ended(pid)


def test_sglang_router_ends_with_a_killed_router(empty, python):
    empty.configure(backend="sglang", python=python)
    empty.add("cpu-0")
    with subprocess.Popen([sys.executable, "-m", "slurminfer.router", str(empty.run.path)]) as process:
        record = eventually(empty.run.read_router)
        headers = {"Authorization": f"Bearer {empty.run.key()}"}
        with httpx.Client(base_url=record.url, headers=headers) as empty.http:
            eventually(lambda: listed(empty) == 1)
            pid = pid_of_fake(empty)
        process.kill()
    eventually(lambda: has_ended(pid))


@pytest.mark.parametrize(
    ("version", "there"), [("", "no sglang-router"), ("0.2.0", "sglang-router 0.2.0")], ids=["none", "other version"]
)
def test_without_sglang_router_it_does_not_start(empty, tmp_path, version, there):
    python = str(environment(tmp_path / "env", version)) if version else sys.executable
    empty.configure(backend="sglang", python=python)
    with pytest.raises(RouterError, match=f"{there} in the environment of {python}; expected sglang-router {VERSION}"):
        failing(empty)
    assert there in empty.run.read_router().reason


def test_an_interpreter_that_is_not_there(empty):
    empty.configure(backend="sglang", python="/nowhere/python")
    with pytest.raises(RouterError, match=r"router.python = '/nowhere/python' cannot be started: No such file"):
        failing(empty)


def test_a_port_that_is_taken(empty, python):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        empty.configure(backend="sglang", python=python)
        text = empty.run.spec_path.read_text()
        empty.run.spec_path.write_text(text.replace("port = 0", f"port = {port}"))
        with pytest.raises(RouterError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            failing(empty)


def failing(deployment) -> None:
    """A router that cannot start."""
    import asyncio

    from slurminfer.router.main import serve

    asyncio.run(serve(deployment.run, asyncio.Event(), in_process=True))
