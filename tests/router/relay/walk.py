"""Random clients and workers before one relay, and what must be true once they have gone.

`python -m tests.router.relay.walk [--seconds 300] [--seed 1]` walks for long, each time with the next seed.
"""

import argparse
import asyncio
import ctypes
import gc
import gzip
import json
import logging
import random
import re
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import uvloop

from slurminfer.router.relay import outcome
from slurminfer.router.relay.workers import health
from slurminfer.router.tenants.tenant import Priority

from ...support.loop import Loop
from .relayed import HEAD, LAST, Asked, Relayed, Stub, chunk, event, hang

STEPS = 60
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"queue": 4},
    {"hedge_after": 0.005},
    {"failover": False, "queue": 0},
)
_WORKERS = 3
_PATIENCE_S = 25.0
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n((?:[^\r]+\r\n)*)\r\n")
_ID = re.compile(rb"x-request-id: ([^\r]+)", re.IGNORECASE)
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_OURS = ("ClientReply.", "Connection.", "Attempt.", "WorkerPool.", "Health.", "Forwarder.", "Pages.")

Behaviour = Callable[[Asked], Awaitable[None]]


class Walk:
    """One random walk: `run` fails where a client got no answer or two, then `require_nothing_left`."""

    def __init__(self, relay: Relayed, loop: Loop, seed: int) -> None:
        self._relay, self._loop, self._random = relay, loop, random.Random(seed)
        self._asking: list[Future[None]] = []
        self._lives = self._ids = 0
        self._waiting: set[bytes] = set()  # ids of requests whose clients wait for as long as it takes
        self.calm = False
        self.answered = 0
        for key, fields in (
            ("batch", {"priority": Priority.BATCH, "tokens_per_day": 10**9}),
            ("urgent", {"priority": Priority.INTERACTIVE, "requests_per_minute": 10**6}),
        ):
            relay.add_tenant(key, name=key, **fields)
        for _ in range(_WORKERS):
            self._add_worker()

    def run(self, steps: int = STEPS) -> None:
        """Walk, then let all clients that still wait be answered."""
        for _ in range(steps):
            if self._random.random() < 0.8:
                for _ in range(self._random.randrange(1, 5)):
                    self._asking.append(self._loop.start(self._client()))
            else:
                self._change_worker()
            time.sleep(self._random.choice((0, 0, 0.002, 0.01)))
            self._require_no_negative_cells()
        self.calm = True
        self._add_worker()
        self._relay.run(self._cut)
        for asking in self._asking:
            asking.result(timeout=60)
        self._require_no_negative_cells()

    def require_nothing_left(self) -> None:
        """Wait until nothing counts any more, anywhere in the relay."""
        deadline = time.monotonic() + 20
        while (left := self._relay.run(self._left)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not left, left

    def _left(self) -> dict[str, Any]:
        server = self._relay.server
        row, workers, admission = self._relay.board.row(0), server._workers, server._admission
        bodies = server._server._state.bodies
        cells = {name: [cell for cell in getattr(row, name).tolist() if cell] for name in _CELLS}
        lanes = [(lane.waiting, lane.inside, lane.in_transit, lane.interactive) for lane in admission._lanes.values()]
        left = {
            **cells,
            "connections": server._server.connections,
            "guard": sum(server._guard.counts.values()),
            "bodies": server._server.held_bytes or sum(share.held for share in bodies._by_tenant.values()),
            "queued": sum(admission.waiting().values()) or len(admission._crowded),
            "lanes": [lane for lane in lanes if any(lane)],
            "preemptable": sum(len(lane.preemptable) for lane in admission._lanes.values()),
            "attempts": sum(len(one.attempts) for one in (*workers.all(), *workers._retired)),
            "in flight": [one.in_flight for one in workers.all() if one.in_flight or one.pending_tokens],
            "pages": server._pages._asked,
            "tasks": [task for task in asyncio.all_tasks() if _name(task).startswith(_OURS)],
        }
        return {name: value for name, value in left.items() if value}

    def _require_no_negative_cells(self) -> None:
        row = self._relay.board.row(0)
        wrong = self._relay.run(lambda: {name: min(getattr(row, name).tolist()) for name in _CELLS})
        assert not [one for one in wrong.values() if one < 0], wrong

    # Workers.

    def _cut(self) -> None:
        """End what somebody still waits for. The relay itself must end what it had sent for those that have gone."""
        for stub in self._relay.stubs:
            for asked in stub.asked:
                if asked.headers["x-request-id"].encode() in self._waiting:
                    asked.cut()

    def _add_worker(self) -> None:
        self._relay.add(f"w-{self._lives}", self._behave, capacity=2)
        self._lives += 1

    def _change_worker(self) -> None:
        relay = self._relay
        stubs = [stub for stub in relay.stubs if stub.id in relay.views]
        stub = self._random.choice(stubs)
        what = self._random.randrange(7)
        if what == 0:
            relay.kill(stub)
            self._forget(stub)
        elif what == 1:
            self._forget(stub)
        elif what == 2:
            relay.tell(stub.id, state="draining", choosable=False)
        elif what == 3:
            relay.tell(stub.id, choosable=False, has_stopped=True, trouble="frozen")
        elif what == 4:
            relay.tell(stub.id, move_by=time.time())
        elif what == 5:
            stub.health = self._random.choice((200, 503))
        else:
            relay.tell(stub.id, state="ready", choosable=True, has_stopped=False, move_by=None)

    def _forget(self, stub: Stub) -> None:
        self._relay.tell(stub.id)
        self._add_worker()

    async def _behave(self, asked: Asked) -> None:
        if self.calm or self._random.random() < 0.35:
            await asked.answer()
            return
        await self._random.choice(_FAULTS)(asked)

    # Clients.

    def _request(self) -> tuple[bytes, bytes]:
        """A request and its id."""
        pick = self._random
        self._ids += 1
        name = b"walk-%d" % self._ids
        kind = pick.randrange(12)
        key = pick.choice((b"key", b"batch", b"urgent"))
        head = b"Host: x\r\nX-Request-Id: %b\r\nAuthorization: Bearer %b\r\n" % (name, key)
        if kind == 0:
            return b"GET /v1/models HTTP/1.1\r\n" + head + b"\r\n", name
        if kind == 1:
            return b"GET /health HTTP/1.1\r\nX-Request-Id: %b\r\n\r\n" % name, name
        fields = {"model": pick.choice(("m", "m", "m", "none")), "messages": [{"role": "user", "content": "Hi" * 50}]}
        body = json.dumps({**fields, "stream": pick.random() < 0.7, "seed": pick.randrange(3)}).encode()
        head += pick.choice((b"", b"", b"X-Priority: batch\r\n", b"X-Priority: none\r\n", b"Expect: 100-continue\r\n"))
        if kind == 2:
            body, head = gzip.compress(body), head + b"Content-Encoding: gzip\r\n"
        if kind == 3:
            framed, length = chunk(body[:20]) + chunk(body[20:]) + LAST, b"Transfer-Encoding: chunked\r\n"
        else:
            framed, length = body, b"Content-Length: %d\r\n" % len(body)
        version = b"1.0" if kind == 4 else b"1.1"
        return b"POST /v1/chat/completions HTTP/%b\r\n%b%b\r\n%b" % (version, head, length, framed), name

    async def _client(self) -> None:
        pick = self._random
        requests = [self._request() for _ in range(pick.choice((1, 1, 1, 1, 2, 5)))]
        data, names = b"".join(request for request, _ in requests), [name for _, name in requests]
        how = pick.randrange(8)
        try:
            reader, writer = await asyncio.open_connection(*self._relay.address, limit=2**12)
            if how == 0:  # leaves in the middle of a head or a body
                writer.write(data[: pick.randrange(len(data))])
                await asyncio.sleep(pick.choice((0, 0.01)))
            elif how == 1:  # leaves at once, or while it waits
                writer.write(data)
                await asyncio.sleep(pick.choice((0, 0, 0.001, 0.005, 0.02, 0.1)))
            elif how == 2:  # leaves in the middle of an answer
                writer.write(data)
                await asyncio.wait_for(reader.read(pick.randrange(1, 600)), pick.choice((0.02, 0.3)))
            elif how == 3:  # closes its side
                writer.write(data)
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 5)
            elif how == 4:  # does not read
                writer.write(data)
                await asyncio.sleep(pick.choice((0.05, 0.2)))
            else:
                await self._wait_for_answers(reader, writer, data, names)
            writer.transport.abort()
        except (TimeoutError, ConnectionError):
            with suppress(UnboundLocalError):
                writer.transport.abort()

    async def _wait_for_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, names: list[bytes]
    ) -> None:
        got = b""
        self._waiting.update(names)
        writer.write(data)
        async with asyncio.timeout(_PATIENCE_S) as patience:
            while ((found := list(_answers(got))) and len(found) < len(names)) or not found or not found[-1][2]:
                piece = await reader.read(65536)
                if not piece:
                    break
                got += piece
        assert not patience.expired(), (names, got)
        told = [name for _, name, _ in _answers(got) if name]
        assert told == names[: len(told)], (names, got)
        self.answered += len(told)


_CELLS = ("requests", "tokens", "suspects", "reserved")


def _name(task: "asyncio.Task[Any]") -> str:
    return getattr(task.get_coro(), "__qualname__", "")


def _answers(data: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Status, id and whether it is complete, of each answer in `data`; provisional ones are left out."""
    while (head := _HEAD.match(data)) is not None:
        data = data[head.end() :]
        status, lines = int(head[1]), head[2]
        if status < 200:
            continue
        name, length = _ID.search(lines), _LENGTH.search(lines)
        is_complete = True
        if b"ransfer-encoding: chunked" in lines.lower():
            _, end, data = data.partition(b"\r\n0\r\n\r\n")
            is_complete = bool(end)
        elif length is not None:
            is_complete, data = len(data) >= int(length[1]), data[int(length[1]) :]
        else:
            is_complete, data = False, b""
        yield status, name[1] if name else b"", is_complete


# What workers do that do not just answer.


async def _slow(asked: Asked) -> None:
    await asyncio.sleep(0.02)
    await asked.answer()


async def _drop(asked: Asked) -> None:
    asked.cut()


async def _break_off(asked: Asked) -> None:
    await asked.answer(words=2)
    asked.cut()


async def _half_an_event(asked: Asked) -> None:
    await asked.send(HEAD, chunk(event("one")[:20]))
    asked.cut()


async def _comments(asked: Asked) -> None:
    await asked.send(HEAD, *[chunk(b": wait\n\n")] * 3)
    await asked.answer(words=0)


async def _much(asked: Asked) -> None:
    await asked.send(HEAD, *[chunk(event("x" * 100_000))] * 30)
    asked.cut()


async def _garbage(asked: Asked) -> None:
    await asked.send(b"\x00\x01 this is no HTTP\r\n\r\n")


async def _too_much(asked: Asked) -> None:
    await asked.answer()
    await asked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")


async def _unavailable(asked: Asked) -> None:
    await asked.whole({"error": {"message": "x"}}, 503)


async def _failed(asked: Asked) -> None:
    await asked.whole({"error": {"message": "x"}}, 500)


async def _wrong(asked: Asked) -> None:
    await asked.whole({"error": {"message": "x"}}, 400)


async def _error_event(asked: Asked) -> None:
    await asked.send(HEAD, chunk(event("one")), chunk(b'data: {"error": {"message": "x"}}\n\n'))


async def _closing(asked: Asked) -> None:
    await asked.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{}")
    asked.writer.close()


_FAULTS: tuple[Behaviour, ...] = (
    _slow, _slow, _drop, hang, _break_off, _half_an_event, _comments, _much, _garbage, _too_much, _unavailable,
    _failed, _wrong, _error_event, _closing,
)  # fmt: skip


@contextmanager
def complaints(loop: Loop) -> Iterator[list[str]]:
    """What the event loop, the log (errors) and Python's warnings say meanwhile."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(handler.format(record))  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    loop._loop.set_exception_handler(lambda _, context: found.append(str(context)))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield found
    logging.getLogger().removeHandler(handler)
    loop._loop.set_exception_handler(None)
    found += [str(warning.message) for warning in warned if "never awaited" in str(warning.message)]


def walk(loop: Loop, seed: int, steps: int = STEPS) -> int:
    """Walk once with the seed. How many requests were seen to be answered."""
    with tempfile.TemporaryDirectory(prefix="slurminfer-") as folder, complaints(loop) as found:
        relay = Relayed(loop, Path(folder), queue_timeout=2.0, **SETTINGS[seed % len(SETTINGS)])
        try:
            one = Walk(relay, loop, seed)
            one.run(steps)
            one.require_nothing_left()
        finally:
            relay.close()
    assert not found, (seed, found)
    return one.answered


def main() -> None:
    """Walk for long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with patch.object(outcome, "PAUSE_S", 0.01), patch.object(health, "DYING_PAUSE_S", 0.01):
        _walk_for(arguments.seconds, arguments.seed)


def _walk_for(seconds: float, seed: int) -> None:
    loop, process = Loop(uvloop.new_event_loop()), psutil.Process()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answered = walk(loop, seed)
        if seed % 10 == 0:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            print(f"seed {seed}: {answered} answered, RSS {process.memory_info().rss / 2**20:.1f} MiB", flush=True)
        seed += 1


if __name__ == "__main__":
    main()
