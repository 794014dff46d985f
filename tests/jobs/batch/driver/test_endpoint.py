"""The HTTP client of a batch, against servers that write what the test says."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
import uvloop

from slurminfer.core.net.certificates import new_key, self_signed
from slurminfer.jobs.batch.driver import endpoint as module
from slurminfer.jobs.batch.driver.address import Address
from slurminfer.jobs.batch.driver.endpoint import Endpoint
from slurminfer.jobs.batch.driver.http import reply as reply_module
from slurminfer.jobs.batch.driver.http.reply import AnswerTooLongError, Reply, UnreachableError

Script = Callable[["Server", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: r1\r\nRetry-After: 7\r\n\r\n{}"


class Server:
    """Calls a script for each connection."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self._script, self._context = script, context
        self.connections = 0
        self.requests: list[tuple[bytes, bytes]] = []  # heads and bodies

    async def __aenter__(self) -> "Server":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context, limit=1 << 24)
        scheme = "https" if self._context else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._script(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def take(self, reader: asyncio.StreamReader) -> None:
        """Read a request."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
        self.requests.append((head, await reader.readexactly(length)))


def always(*pieces: bytes) -> Script:
    """Answers each request with these pieces."""

    async def script(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.take(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)

    return script


def once(answer: bytes) -> Script:
    """Answers one request and closes the connection."""

    async def script(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.take(reader)
        writer.write(answer)
        await writer.drain()

    return script


def ask(script: Script, *bodies: bytes, key: str | None = None, prefix: str = "") -> tuple[Server, list[Reply]]:
    async def run() -> tuple[Server, list[Reply]]:
        async with Server(script) as server:
            endpoint = Endpoint(Address(server.url + prefix), key, None)
            try:
                return server, [await endpoint.post("/v1/completions", body) for body in bodies]
            finally:
                endpoint.close()

    return uvloop.run(run())


def test_a_request_and_its_answer():
    server, (reply,) = ask(always(OK), b'{"a": 1}', key="secret", prefix="/below/v1/")
    assert (reply.status, reply.body, reply.request_id, reply.retry_after_s) == (200, b"{}", "r1", 7.0)
    head, body = server.requests[0]
    assert body == b'{"a": 1}'
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /below/v1/completions HTTP/1.1"
    assert {b"Authorization: Bearer secret", b"X-Priority: batch", b"Content-Type: application/json"} < set(lines)
    assert b"Host: " + server.url[7:].encode() in lines


def test_one_connection_serves_one_request_after_the_other():
    server, replies = ask(always(OK), b"1", b"2", b"3")
    assert server.connections == 1 and len(replies) == 3


def test_an_answer_in_chunks_and_pieces():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    _, (reply,) = ask(always(chunked[:20], chunked[20:], b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n", b"\r\n"), b"x")
    assert reply.body == b"abcde"


def test_an_answer_that_ends_with_its_connection():
    _, (reply,) = ask(once(b"HTTP/1.0 200 OK\r\n\r\nabc"), b"x")
    assert reply.body == b"abc"


def test_a_connection_that_was_closed_meanwhile_is_replaced():
    server, replies = ask(once(OK), b"1", b"2", b"3")
    assert [reply.body for reply in replies] == [b"{}"] * 3
    assert server.connections == 3 and [body for _, body in server.requests] == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"HTTP/1.1 200 OK\r\nConte"]
)
def test_an_answer_that_breaks_off(answer):
    with pytest.raises(UnreachableError) as raised:
        ask(once(answer), b"x")
    assert raised.value.broken_off


def test_what_is_no_http():
    with pytest.raises(UnreachableError, match="no HTTP"):
        ask(always(b"220 mail.example.org ESMTP\r\n"), b"x")


def test_nobody_there():
    async def run() -> None:
        endpoint = Endpoint(Address("http://127.0.0.1:9"), None, None)
        await endpoint.post("/v1/completions", b"{}")

    with pytest.raises(UnreachableError, match="no connection: ") as raised:
        uvloop.run(run())
    assert not raised.value.broken_off, "nothing was sent"


def test_a_name_that_nobody_has():
    async def run() -> None:
        await Endpoint(Address("http://nowhere.invalid"), None, None).post("/v1/completions", b"{}")

    with pytest.raises(UnreachableError, match="no connection: "):
        uvloop.run(run())


def test_a_large_request_to_a_server_that_reads_late():
    async def script(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        received = bytearray()
        while len(received) < 30_000_000:
            received += await reader.read(1 << 20)
            await asyncio.sleep(0)
        server.requests.append((head, bytes(received)))
        writer.write(OK)

    body = bytes(range(250)) * 120_000
    server, (reply,) = ask(script, body)
    assert reply.body == b"{}" and server.requests[0][1] == body


def test_an_answer_that_is_too_long(monkeypatch):
    monkeypatch.setattr(reply_module, "LONGEST_ANSWER", 1 << 20)
    fits = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 20) + bytes(1 << 20)
    assert len(ask(always(fits), b"x")[1][0].body) == 1 << 20
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    with pytest.raises(AnswerTooLongError, match="longer than 1 MiB"):
        ask(always(endless, *[b"10000\r\n" + bytes(1 << 16) + b"\r\n"] * 20), b"x")


def test_answers_that_are_too_much_together_are_given_up_to_be_asked_for_again(monkeypatch):
    monkeypatch.setattr(reply_module, "MOST_HELD", 3 << 20)
    half = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 << 20) + bytes(1 << 20)

    async def run() -> None:
        go_on = asyncio.Event()

        async def script(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.take(reader)
            writer.write(half)
            await go_on.wait()
            writer.write(bytes(1 << 20))
            await reader.read()

        async with Server(script) as server:
            endpoint = Endpoint(Address(server.url), None, None)
            tasks = [asyncio.create_task(endpoint.post("/v1/completions", b"x")) for _ in range(3)]
            while endpoint._held.bytes < 3 << 20:
                await asyncio.sleep(0.001)
            go_on.set()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            told = [str(one) for one in done if isinstance(one, UnreachableError)]
            assert set(told) == {"answers of more than 3 MiB came at once"}
            assert [len(one.body) for one in done if isinstance(one, Reply)] == [2 << 20] * (3 - len(told))
            assert len(told) < 3 and endpoint._held.bytes == 0
            endpoint.close()

    asyncio.run(run())


def test_a_request_that_is_given_up_closes_its_connection():
    """So that an engine stops computing for it."""
    ended = asyncio.Event()

    async def script(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.take(reader)
        try:
            await reader.read()
        finally:
            ended.set()

    async def run() -> None:
        async with Server(script) as server:
            endpoint = Endpoint(Address(server.url), None, None)
            task = asyncio.create_task(endpoint.post("/v1/completions", b"x"))
            while not server.requests:
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait_for(ended.wait(), 20)

    uvloop.run(run())


def test_something_small_has_a_bound(monkeypatch):
    monkeypatch.setattr(module, "_ASIDE_S", 0.05)

    async def run() -> None:
        async with Server(always()) as server:
            await Endpoint(Address(server.url), None, None).get("/workers")

    with pytest.raises(UnreachableError, match="no answer of /workers within"):
        uvloop.run(run())


def test_tls_with_an_authority_of_ones_own(tmp_path):
    path = tmp_path / "both.pem"
    path.write_text(self_signed(new_key(), "x", ["127.0.0.1"], datetime.now(UTC)))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(path)

    async def run(trusted: ssl.SSLContext | None) -> bytes:
        async with Server(always(OK), served) as server:
            endpoint = Endpoint(Address(server.url, trusted), None, None)
            try:
                return (await endpoint.post("/v1/completions", b"x" * 1_000_000)).body
            finally:
                endpoint.close()

    assert uvloop.run(run(ssl.create_default_context(cafile=path))) == b"{}"
    with pytest.raises(UnreachableError, match="certificate verify failed"):
        uvloop.run(run(None))


def test_many_failures_look_for_the_endpoint_once():
    looked: list[int] = []

    async def run() -> None:
        async with Server(always(OK)) as server:

            def locate() -> Address:
                looked.append(1)
                return Address(server.url)

            endpoint = Endpoint(Address("http://127.0.0.1:9"), None, locate)
            await asyncio.gather(*(endpoint.relocate() for _ in range(50)))
            assert (await endpoint.post("/v1/completions", b"x")).status == 200
            endpoint.close()

    uvloop.run(run())
    assert len(looked) == 1


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error": {"message": "too long", "code": "worker_lost"}}', "too long", "worker_lost"),
        (b'{"error": {"message": "x", "code": 7}}', "x", None),
        (b" some text ", "some text", None),
        (b"\xff\xfe", "\ufffd\ufffd", None),
        (b"[" * 5000, "[" * 2000, None),
    ],
)
def test_what_an_error_says(body, message, code):
    reply = Reply(500, [], body)
    assert (reply.message, reply.code) == (message, code)
