"""Stub workers that note whose requests they get."""

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import cast

import httptools

from slurminfer.core.records import WorkerRecord, WorkerState

_JSON = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_USAGE = {"prompt_tokens": 5, "completion_tokens": 3}
_WORDS = 3


class Recorder:
    """What all stub workers have seen."""

    def __init__(self) -> None:
        self.ids: list[str] = []  # of requests other than GET
        self.wrong: list[str] = []  # what no router should have sent
        self.connections: set[asyncio.Transport] = set()
        self._servers: list[asyncio.Server] = []

    async def serve(self, path: Path) -> None:
        """Be a worker on a Unix socket until `close`."""
        path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_unix_server(lambda: _Connection(self), str(path), backlog=1024))

    async def close(self) -> None:
        """Close all connections, and accept no more."""
        for server in self._servers:
            server.close()
        for connection in self.connections:
            connection.abort()
        while self.connections:
            await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    """One connection of the router."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._parser = httptools.HttpRequestParser(self)
        self._begin()

    def _begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body = self._target = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._recorder.connections.add(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._recorder.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._recorder.wrong.append(f"{error!r}: {data[:500]!r}")
            self._transport.abort()

    def on_message_begin(self) -> None:
        self._begin()

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in self._headers and name in (b"content-length", b"x-request-id", b"authorization", b"host"):
            self._recorder.wrong.append(f"{name!r} twice")
        if name.startswith((b"x-slurminfer-", b"transfer-encoding", b"upgrade")) or name == b"x-api-key":
            self._recorder.wrong.append(f"the header {name!r}")
        self._headers[name] = value

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            self._answer({"object": "list", "data": [{"id": "canary-model", "object": "model"}]})
            return
        if b'"max_tokens": 1,' in self._body and b'"prompt": "1"' in self._body:  # the router's own question
            self._answer({"choices": [{"index": 0, "text": "1"}]})
            return
        self._recorder.ids.append(self._headers.get(b"x-request-id", b"").decode("latin-1"))
        if b'"stream":true' in self._body and not self._target.startswith(b"/v1/embeddings"):
            self._stream()
        elif b"-1" in self._body:
            self._answer({"error": {"message": "max_tokens", "type": "invalid_request_error"}}, 400)
        else:
            choice = {"index": 0, "finish_reason": "stop", "text": "a b c", "message": {"content": "a b c"}}
            self._answer({"choices": [choice], "data": [{"embedding": [0.5]}], "usage": _USAGE})

    def _answer(self, body: object, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self._transport.write(_JSON % (status, len(data), data))

    def _stream(self) -> None:
        """A stream in some pieces: other connections go on in between, and clients leave."""
        self._transport.write(_STREAM)
        self._tell(0)

    def _tell(self, word: int) -> None:
        if self._transport.is_closing():
            return
        if word < _WORDS:
            choice = {"index": 0, "text": " word", "delta": {"content": " word"}, "finish_reason": None}
            event = b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode()
            self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            asyncio.get_running_loop().call_later(0.002, self._tell, word + 1)
        else:
            end = b"data: %b\n\ndata: [DONE]\n\n" % json.dumps({"choices": [], "usage": _USAGE}).encode()
            if self._target.startswith(b"/v1/responses"):
                end = b"event: response.completed\n" + end
            self._transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))


def record_of(name: str, path: Path) -> WorkerRecord:
    """What a run directory says of a worker on that socket."""
    return WorkerRecord(
        id=name, pool="stubs", engine="none", model="canary-model", state=WorkerState.READY, job="1", epoch=0,
        host=socket.gethostname(), pid=1, updated_at=time.time(), socket=str(path), key="canary-key", capacity=16,
    )  # fmt: skip
