"""An HTTP client that costs little: one request at a time on a connection that is kept."""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any, cast

import httptools

from .targets import Target

_TEXT = re.compile(rb'"(?:content|text)": ?"[^"]')  # an event with some of the answer


@dataclass(slots=True)
class Answer:
    """What has come of one request."""

    began: float  # monotonic, when it was sent
    status: int = 0  # 0: no head of an answer has come
    body: bytearray = field(default_factory=bytearray)
    first_s: float = 0.0  # from the sending to the first event with text of a stream, or to the first bytes
    took_s: float = 0.0  # from the sending to the end
    complete: bool = False  # its end came as HTTP says it
    error: str = ""  # what went wrong with the connection


def post(target: Target, path: str, body: bytes, headers: str = "") -> bytes:
    """A whole request."""
    host = target.url.removeprefix("http://")
    key = f"Authorization: Bearer {target.key}\r\n" if target.key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{key}{headers}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def request_of(target: Target, fields: dict[str, Any]) -> bytes:
    """A chat or completions request with these fields."""
    path = "/v1/chat/completions" if "messages" in fields else "/v1/completions"
    return post(target, path, json.dumps(fields).encode())


class Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._done: asyncio.Future[Answer] | None = None
        self.lost = False
        self.slow = False  # a client that reads nothing for now

    @classmethod
    async def open(cls, target: Target) -> "Connection":
        """Connect. Raises OSError."""
        host, _, port = target.url.removeprefix("http://").partition(":")
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(cls, host, int(port)))[1]

    def ask(self, request: bytes) -> "asyncio.Future[Answer]":
        """Send a request; its answer comes whatever happens."""
        self._answer = Answer(time.monotonic())
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        if self.lost:
            self._finish("the connection was closed before")
        return self._done

    def close(self) -> None:
        """Hang up."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.port = int(transport.get_extra_info("sockname")[1])

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._finish(str(exc or "closed"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._finish(f"no HTTP: {error}")
            self.close()

    def on_body(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            return
        answer.body += data
        if not answer.first_s and (_TEXT.search(data) or not data.startswith(b"data:")):
            answer.first_s = time.monotonic() - answer.began

    def on_headers_complete(self) -> None:
        if self._answer is not None:
            self._answer.status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        if self._answer is not None:
            self._answer.complete = True
        self._finish("")
        if not self._parser.should_keep_alive():
            self.lost = True
            self.close()

    def _finish(self, error: str) -> None:
        answer, done, self._answer, self._done = self._answer, self._done, None, None
        if answer is None or done is None or done.done():
            return
        answer.took_s, answer.error = time.monotonic() - answer.began, error
        done.set_result(answer)
