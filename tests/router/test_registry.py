"""How the router finds workers and loses sight of them, through a real run directory."""

import socket
import threading
from pathlib import Path

from slurminfer.core.records import WorkerState


def test_a_new_worker_is_found(one, eventually):
    one.add("cpu-1")
    eventually(lambda: one.workers().get("cpu-1", {}).get("healthy"))
    assert {one.chat().headers["X-Stub"] for _ in range(4)} == {"cpu-0", "cpu-1"}


def test_worker_files_that_are_no_records_are_ignored(one, eventually):
    folder = one.run.workers_path
    (folder / "torn.json").write_text('{"id": "torn", ')
    (folder / "alien.json").write_text('{"hello": "world"}')
    (folder / "binary.json").write_bytes(b"\xff\xfe\x00")
    (folder / "future.json").write_text((folder / "cpu-0.json").read_text().replace('"version": 1', '"version": 99'))
    (folder / "copy.json").write_text((folder / "cpu-0.json").read_text())
    (folder / "notes.txt").write_text("hi")
    (folder / "folder.json").mkdir()
    one.add("cpu-1")
    eventually(lambda: one.workers().get("cpu-1", {}).get("healthy"))
    assert sorted(one.workers()) == ["cpu-0", "cpu-1"]
    assert one.chat().status_code == 200


def test_a_worker_whose_file_becomes_unreadable_stays_as_it_was(one, eventually):
    (one.run.workers_path / "cpu-0.json").write_text("garbage")
    one.add("cpu-1")
    eventually(lambda: "cpu-1" in one.workers())
    assert one.workers()["cpu-0"]["healthy"]


def test_ready_worker_without_an_answer_is_not_chosen(empty):
    empty.add("cpu-0").stop()
    empty.start_router()
    assert empty.chat().status_code == 503
    assert empty.http.get("/health").json()["error"]["message"].count("1 unreachable")
    assert "no way to the worker" in empty.workers()["cpu-0"]["reason"]


def test_worker_with_nonsense_for_an_address_does_not_disturb_the_others(one, eventually):
    stub = one.add("cpu-1")
    stub.socket = Path("not a socket\0")
    stub.publish()
    eventually(lambda: "cpu-1" in one.workers())
    assert [one.chat().status_code for _ in range(3)] == [200] * 3
    assert not one.workers()["cpu-1"]["healthy"]


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


def test_requeued_worker_is_a_new_life(one, eventually):
    stub = one.stubs[0]
    stub.mode = "hang"
    hung = threading.Thread(target=lambda: one.chat(), daemon=True)
    hung.start()
    eventually(lambda: one.workers()["cpu-0"]["in_flight"] == 1)
    stub.publish(epoch=1)
    eventually(lambda: one.workers()["cpu-0"]["in_flight"] == 0)
    stub.mode = "answer"
    eventually(lambda: one.chat().status_code == 200)
    stub.stop()
    hung.join()


def test_vanished_worker_file_takes_the_worker_out(two, eventually):
    (two.run.workers_path / "cpu-0.json").unlink()
    eventually(lambda: sorted(two.workers()) == ["cpu-1"])


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
