"""/v1/files by OpenAI's own client, through a real router."""

import asyncio
import io
import socket
import threading
from contextlib import suppress

import httpx
import openai
import pytest

from slurminfer.router.api import files
from slurminfer.router.batches.files import Draft
from slurminfer.router.batches.limits import MOST_FILE_BYTES
from slurminfer.router.relay.supervisor.uploads import MOST_OF_TENANT
from slurminfer.router.tenants.key_store import KeyStore

from ...support.small_disk import small_disk_at


@pytest.fixture
def other(one, eventually):
    """The client of another tenant."""
    key = KeyStore(one.run).add("course")
    client = openai.OpenAI(base_url=f"{one.url}/v1", api_key=key, max_retries=0, timeout=20)
    eventually(lambda: httpx.get(f"{one.url}/v1/models", headers={"X-Api-Key": key}).status_code == 200)
    with client:
        yield client


def test_a_file_is_uploaded_listed_read_and_deleted(one):
    data = b'{"custom_id": "a"}\n' * 100_000
    made = one.openai.files.create(file=("rows.jsonl", io.BytesIO(data)), purpose="batch")
    assert (made.bytes, made.filename, made.purpose, made.status) == (len(data), "rows.jsonl", "batch", "processed")
    assert made.expires_at == made.created_at + 30 * 24 * 3600
    assert one.openai.files.retrieve(made.id) == made
    assert list(one.openai.files.list()) == [made]
    assert one.openai.files.content(made.id).read() == data
    assert one.openai.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        one.openai.files.retrieve(made.id)
    assert list(one.openai.files.list()) == []
    assert not left(one)


def test_a_file_is_its_tenants_alone(one, other):
    made = one.openai.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
    assert list(other.files.list()) == []
    for ask in (other.files.retrieve, other.files.content, other.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(made.id)
    assert one.openai.files.content(made.id).read() == b"{}\n"


def test_pages_of_a_list(one):
    made = [one.openai.files.create(file=(f"{n}.jsonl", b"{}\n"), purpose="batch").id for n in range(5)]
    page = one.openai.files.list(limit=2, order="asc")
    assert [file.id for file in page.data] == made[:2] and page.has_more
    assert [file.id for file in one.openai.files.list(limit=2)] == made[::-1]  # all pages
    assert one.openai.files.list(purpose="batch_output").data == []


def test_a_list_is_made_beside_the_supervisors_loop(one, monkeypatch):
    """One of ten thousand files takes a while, and the same loop looks after the workers."""
    made = one.openai.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
    shown = files.shown

    def shown_beside(record):
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return shown(record)

    monkeypatch.setattr(files, "shown", shown_beside)
    assert [file.id for file in one.openai.files.list()] == [made.id]


def test_nobody_sees_a_file_whose_upload_broke_off(one, eventually):
    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"a" * 3_000_000
        eventually(lambda: left(one))
        assert list(one.openai.files.list()) == []
        raise ConnectionError

    with pytest.raises(ConnectionError):
        one.http.post("/v1/files", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    eventually(lambda: not left(one))


def left(one):
    """What there is on the disk."""
    return list(one.run.files_path.glob("*"))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--y\r\n\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc'),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n\xff\r\n--x--',
        ),
        ("multipart/form-data; boundary=" + "x" * 300, b"--x\r\n\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"a" * 100_000),
        ("multipart/form-data; boundary=x", b"\x00" * 100_000),
    ],
)
def test_what_is_no_form_is_refused(one, kind, body):
    answer = one.http.post("/v1/files", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert not left(one)
    assert one.http.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "fine-tune"}, "purpose"),
        ({}, "purpose"),
        ({"purpose": "batch", "expires_after[anchor]": "now", "expires_after[seconds]": "3600"}, "expires_after"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "1"}, "expires_after"),
        ({"purpose": "batch", "other": "1"}, "other"),
    ],
)
def test_wrong_fields_are_named(one, fields, param):
    answer = one.http.post("/v1/files", data=fields, files={"file": b"{}"})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param
    assert one.http.get("/v1/files").json()["data"] == []


def test_a_body_that_is_too_large_is_refused_by_its_head(one):
    url = httpx.URL(one.url)
    with socket.create_connection((url.host, url.port)) as client:
        head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nX-Api-Key: {one.run.key()}\r\n"
        client.sendall(f"{head}Content-Length: {2 * MOST_FILE_BYTES}\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("id", ["../key", "..%2f..%2fkey", "file-", "file-" + "0" * 32, "batch_" + "0" * 32, "%00"])
def test_ids_lead_nowhere_else(one, id):
    for path in (f"/v1/files/{id}", f"/v1/files/{id}/content", f"/v1/batches/{id}"):
        assert one.http.get(path).status_code == 404


def test_a_file_expires(one):
    made = one.openai.files.create(
        file=("a", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == made.created_at + 3600


def test_an_upload_waits_for_a_slow_disk_instead_of_memory(one, monkeypatch, eventually):
    """The client is held back as long as nothing is written."""
    go, held, write = threading.Event(), threading.Event(), Draft.write

    def write_later(draft, data):
        held.set()
        go.wait(20)
        write(draft, data)

    monkeypatch.setattr(Draft, "write", write_later)
    url = httpx.URL(one.url)
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    tail = b'\r\n--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n'
    size = 64 * 2**20
    with socket.create_connection((url.host, url.port)) as client:
        lines = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nX-Api-Key: {one.run.key()}\r\nConnection: close\r\n"
        lines += f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(head) + size + len(tail)}\r\n"
        client.sendall(f"{lines}\r\n".encode() + head)
        client.setblocking(False)
        sent = 0

        def is_stuck():
            nonlocal sent
            before = sent
            with suppress(BlockingIOError):
                while sent < size:
                    sent += client.send(b"a" * min(2**16, size - sent))
            return held.is_set() and sent == before

        eventually(is_stuck)
        assert sent < size / 2, "the rest is the client's to hold"
        go.set()
        client.setblocking(True)
        while sent < size:
            sent += client.send(b"a" * min(2**16, size - sent))
        client.sendall(tail)
        answer = b""
        while data := client.recv(2**16):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200 ") and f'"bytes": {size}'.encode() in answer


def test_a_full_disk_is_told_and_the_service_goes_on(one):
    folder = one.run.files_path
    folder.mkdir(mode=0o700)
    with small_disk_at(folder, "1m", mode="700"):
        answer = one.http.post("/v1/files", data={"purpose": "batch"}, files={"file": b"a" * 3_000_000})
        assert answer.status_code == 507 and answer.json()["error"]["code"] == "no_space_left"
        assert answer.headers["X-Should-Retry"] == "false"
        assert not left(one) and one.chat().status_code == 200
        assert one.openai.files.create(file=("a", b"a" * 1000), purpose="batch").bytes == 1000


def test_so_many_uploads_at_once(one, eventually):
    """A tenant whose uploads stand still has only so many."""
    url, clients = httpx.URL(one.url), []
    head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nX-Api-Key: {one.run.key()}\r\nContent-Length: 1000\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    head += 'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    try:
        for _ in range(MOST_OF_TENANT):
            clients.append(socket.create_connection((url.host, url.port)))
            clients[-1].sendall(head.encode())
        eventually(lambda: len(left(one)) == MOST_OF_TENANT)
        answer = one.http.post("/v1/files", data={"purpose": "batch"}, files={"file": b"a"})
        assert answer.status_code == 503 and "Retry-After" in answer.headers
    finally:
        for client in clients:
            client.close()
    eventually(lambda: not left(one))
    assert one.http.post("/v1/files", data={"purpose": "batch"}, files={"file": b"a"}).status_code == 200
