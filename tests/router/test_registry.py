"""What becomes of requests while workers come and go, through a real run directory."""

import socket

import pytest

from slurminfer.core.records import WorkerState
from slurminfer.router.fleet import trust
from slurminfer.router.relay.workers import upstream


def test_worker_that_fails_its_probe_is_left_out_until_it_passes(two, eventually):
    sick, well = two.stubs
    sick.health = 503
    eventually(lambda: not two.workers()[sick.id]["healthy"])
    assert {two.chat().headers["X-Stub"] for _ in range(3)} == {well.id}
    sick.health = 200
    eventually(lambda: two.workers()[sick.id]["healthy"])


def test_draining_worker_ends_its_stream_but_gets_no_new_request(two, eventually):
    for stub in two.stubs:
        stub.stepwise = True
        stub.go.release()
    with two.http.stream("POST", "/v1/completions", json={"model": "stub-model", "stream": True}) as answer:
        drained = next(stub for stub in two.stubs if stub.requests)
        other = next(stub for stub in two.stubs if stub is not drained)
        assert answer.headers["X-Stub"] == drained.id
        drained.publish(WorkerState.DRAINING)
        eventually(lambda: two.workers()[drained.id]["state"] == "draining")
        assert two.workers()[drained.id]["in_flight"] == 1
        assert {two.chat().headers["X-Stub"] for _ in range(3)} == {other.id}
        drained.go.release(3)
        assert answer.read().endswith(b"[DONE]\n\n")
    eventually(lambda: two.workers()[drained.id]["in_flight"] == 0)


@pytest.fixture
def soon_trusted(monkeypatch):
    """Faults count one by one, and a suspect or ejected worker is soon tried again."""
    monkeypatch.setattr(trust, "_SAME_MOMENT_S", 0.0)
    monkeypatch.setattr(trust, "FIRST_WAIT_S", 0.5)
    monkeypatch.setattr(upstream, "_FIRST_SUSPICION_S", 0.05)


@pytest.mark.usefixtures("soon_trusted")
def test_a_worker_whose_answers_break_off_is_ejected_and_nobody_sees_it(two, eventually):
    broken, well = two.stubs
    broken.mode = "cut"
    while not two.workers()[broken.id]["ejected"]:
        assert two.chat(user=str(len(well.requests))).status_code == 200
    assert two.workers()[broken.id]["reason"].startswith("its requests fail: ")
    broken.mode = "answer"
    eventually(lambda: two.workers()[broken.id]["healthy"])
    assert two.workers()[broken.id]["ejections"] == 1


def test_requeued_worker_is_a_new_life(one, eventually):
    stub = one.stubs[0]
    stub.mode = "hang"
    with one.http.stream("POST", "/v1/completions", json={"model": "stub-model", "stream": True}):
        eventually(lambda: one.workers()["cpu-0"]["in_flight"] == 1)
        stub.publish(epoch=1)
        eventually(lambda: one.workers()["cpu-0"]["in_flight"] == 0)
        stub.mode = "answer"
        eventually(lambda: one.chat().status_code == 200)
    assert stub.aborted.wait(10), "the old life's request ends with its client"


def test_restarted_router_is_whole_at_once(two):
    two.stop_router()
    two.start_router()
    assert two.chat().status_code == 200
    assert all(worker["healthy"] for worker in two.workers().values())


def test_garbage_on_the_socket_disturbs_nobody(one):
    host, port = one.url.removeprefix("http://").split(":")
    one.stubs[0].stepwise = True
    one.stubs[0].go.release()
    with one.http.stream("POST", "/v1/completions", json={"model": "stub-model", "stream": True}) as stream:
        for garbage in [
            b"\x00\xff\xfe" * 100 + b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
            b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
            b"GET /" + b"x" * 100_000,
            b"",
        ]:
            with socket.create_connection((host, int(port)), timeout=5) as client:
                client.sendall(garbage)
                client.settimeout(0.2)
                assert not client_gets_200(client)
        one.stubs[0].go.release(3)
        assert stream.read().endswith(b"[DONE]\n\n")
    one.stubs[0].stepwise = False
    assert one.chat().status_code == 200


def client_gets_200(client):
    try:
        return b" 200 " in client.recv(1000)
    except (TimeoutError, ConnectionResetError):
        return False
