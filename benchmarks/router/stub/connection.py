"""HTTP/1.1 of a stub worker, as little of it as routers need."""

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import Any, cast

from .answers import Answer, answer_to, limit_of, prompt_of, tokens_of
from .engine import Job
from .events import Shape, usage_of
from .pulse import event
from .worker import ENDLESS, Mode, StubWorker

_HEAD = re.compile(rb"(\S+) (\S+) HTTP/1\.1\r\n")
_SIZE = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_MOST_REMEMBERED = 4096  # answers of requests that came before, for a worker whose engine takes no time


class Connection(asyncio.Protocol):
    """One connection to a worker. Requests come one after the other, with a Content-Length."""

    def __init__(self, worker: StubWorker) -> None:
        self._worker, self._got, self._job = worker, b"", cast(Job | None, None)
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.pulse.streams.discard(self.transport)
        if self._job is not None:
            self._job.cancelled = True

    def data_received(self, data: bytes) -> None:
        self._got += data
        while not self._busy and (end := self._got.find(b"\r\n\r\n")) >= 0:
            size = _SIZE.search(self._got, 0, end + 2)
            whole = end + 4 + (int(size[1]) if size else 0)
            if len(self._got) < whole:
                return
            head, body, self._got = self._got[: end + 2], self._got[end + 4 : whole], self._got[whole:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        line = _HEAD.match(head)
        if line is None or b"\r\ntransfer-encoding:" in head.lower():
            self._whole(501, b'{"error": "stub workers read bodies with a Content-Length"}')
        elif line[1] == b"POST" and body:
            self._post(body)
        else:
            self._whole(200, self._worker.get(line[2].decode()))

    def _post(self, body: bytes) -> None:
        known = self._worker.remembered.get(body)
        mode = self._worker.mode
        if mode is Mode.HANGING:
            self._busy = True
        elif mode is Mode.GARBAGE:
            self.transport.write(b"\x00\xff nothing that anybody could read \r\n\r\n\x16\x03")
            self.transport.close()
        elif mode is Mode.HEADERS:
            self.transport.write(_STREAM_HEAD)
            self.transport.close()
        elif mode is Mode.REFUSING:
            self._refuse("this worker refuses everything")
        elif known is not None:
            self.transport.write(known)
        else:
            self._generate(json.loads(body), body)

    def _refuse(self, reason: str) -> None:
        error = {"message": reason, "type": "invalid_request_error", "param": None, "code": None}
        self._whole(400, json.dumps({"error": error}).encode())

    def _generate(self, request: dict[str, Any], body: bytes) -> None:
        worker, prompt = self._worker, prompt_of(request)
        if tokens_of(prompt) > worker.context:
            self._refuse(f"the prompt has {tokens_of(prompt)} tokens; this model has room for {worker.context}")
        elif request.get("stream") and limit_of(request) >= ENDLESS:
            self.transport.write(_STREAM_HEAD + event())
            worker.pulse.streams.add(self.transport)
        elif worker.costs.step_s or worker.costs.prefill_rate:
            self._compute(request, prompt)
        else:
            self._at_once(request, prompt, body)

    def _at_once(self, request: dict[str, Any], prompt: str, body: bytes) -> None:
        shape, answer = Shape(request, self._worker.number(), self._worker.model), answer_to(request)
        usage = usage_of(prompt, len(answer.pieces))
        if request.get("stream"):
            events = [
                shape.first(),
                *map(shape.token, filter(None, answer.pieces)),
                shape.last(answer.finish_reason, usage),
            ]
            self.transport.write(_STREAM_HEAD + b"".join(map(_chunk, filter(None, events))) + b"0\r\n\r\n")
            return
        said = _whole(200, shape.whole(answer, usage))
        if len(self._worker.remembered) < _MOST_REMEMBERED:
            self._worker.remembered[body] = said
        self.transport.write(said)

    def _compute(self, request: dict[str, Any], prompt: str) -> None:
        shape = Shape(request, self._worker.number(), self._worker.model)
        reply = Reply(self, shape, answer_to(request), prompt, bool(request.get("stream")))
        self._job = reply.job = Job(tokens_of(prompt), len(reply.answer.pieces), reply.emit)
        self._busy = True
        self._worker.engine.submit(reply.job, prompt)

    def free(self) -> None:
        """The answer is complete: go on with the next request."""
        self._job, self._busy = None, False
        if self._got:
            self.data_received(b"")

    def _whole(self, status: int, body: bytes) -> None:
        self.transport.write(_whole(status, body))


@dataclass(slots=True, eq=False)
class Reply:
    """An answer that takes time: as events, one for each token, or in one piece at its end."""

    connection: Connection
    shape: Shape
    answer: Answer
    prompt: str
    streams: bool
    job: Job = field(init=False)

    def emit(self, made: int) -> None:
        """Token number `made` is there."""
        ends = made + 1 >= len(self.answer.pieces)
        if self.streams:
            self.connection.transport.write(self._events(made, ends))
        elif ends:
            self.connection.transport.write(_whole(200, self.shape.whole(self.answer, self._usage())))
        if ends:
            self.connection.free()

    def _events(self, made: int, ends: bool) -> bytes:
        data = b""
        if made == 0:
            data = _STREAM_HEAD + (_chunk(first) if (first := self.shape.first()) else b"")
        if self.answer.pieces and self.answer.pieces[made]:
            data += _chunk(self.shape.token(self.answer.pieces[made]))
        if ends:
            data += _chunk(self.shape.last(self.answer.finish_reason, self._usage())) + b"0\r\n\r\n"
        return data

    def _usage(self) -> dict[str, Any]:
        return usage_of(self.prompt, len(self.answer.pieces), self.job.cached)


def _whole(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status, b"OK" if status == 200 else b"No", len(body), body,
    )  # fmt: skip


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
