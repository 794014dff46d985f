"""Requests/s, time added to a request, events/s, and CPU time: before workers that take no time."""

import asyncio
import random
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httptools

from .client import request_of
from .fleet import MODEL, Address, Fleet
from .measure import Figures, in_turns, medians
from .stub.__main__ import Configuration
from .stub.answers import WORDS, answer_to
from .stub.worker import ENDLESS
from .targets import Starter, Target

CONNECTIONS = (1, 32, 256)
STREAMS = 256
PACE = 45  # steps/s of 256 streams, as an engine does them
WORKERS = 4
_PROMPTS, _PROMPT_WORDS, _ANSWER_TOKENS = 512, 150, 16
_WINDOW = 2  # events of a stream on their way
_WARM_S = 0.5


@dataclass(frozen=True, slots=True)
class Question:
    """A request's bytes, and what its answer must contain."""

    request: bytes
    expected: bytes


def questions(target: Target) -> list[Question]:
    """Requests of about a kilobyte, all different, for answers of 16 tokens in one piece."""
    rng, found = random.Random(7), []
    for _ in range(_PROMPTS):
        system, user = (" ".join(rng.choices(WORDS, k=_PROMPT_WORDS // 2)) for _ in range(2))
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        fields = {"model": MODEL, "messages": messages, "max_tokens": _ANSWER_TOKENS, "ignore_eos": True}
        found.append(Question(request_of(target, fields), answer_to(fields).text.encode()))
    return found


class Loop(asyncio.Protocol):
    """A connection that asks the next question as soon as the last is answered."""

    def __init__(self, asked: list[Question], at: int) -> None:
        self._questions, self._at = asked, at
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._sent = 0.0
        self.answered = self.wrong = 0
        self.times: list[float] = []
        self.broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.broken = True

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self.times.append(time.perf_counter() - self._sent)
        right = self._parser.get_status_code() == 200 and self._questions[self._at].expected in self._body
        self.answered += right
        self.wrong += not right
        self._ask()

    def _ask(self) -> None:
        self._at = (self._at + 1) % len(self._questions)
        self._body = b""
        self._sent = time.perf_counter()
        self.transport.write(self._questions[self._at].request)


async def requests(target: Target, connections: int, seconds: float) -> Figures:
    """Requests/s of so many connections that each ask one after the other."""
    asked, loop = questions(target), asyncio.get_running_loop()
    host, _, port = target.url.removeprefix("http://").partition(":")
    found = []
    for number in range(connections):
        at = number * 61 % len(asked)
        found.append((await loop.create_connection(lambda at=at: Loop(asked, at), host, int(port)))[1])  # type: ignore[misc]
    await asyncio.sleep(_WARM_S)
    for one in found:
        one.times.clear()
    before, cpu_s, began = sum(one.answered for one in found), target.cpu_s(), time.monotonic()
    await asyncio.sleep(seconds)
    done, took_s = sum(one.answered for one in found) - before, time.monotonic() - began
    cpu_s = target.cpu_s() - cpu_s
    wrong, broken = sum(one.wrong for one in found), sum(one.broken for one in found)
    if wrong or broken:
        raise RuntimeError(f"{target.name}: {wrong} wrong answers, {broken} of {connections} connections were closed")
    times = [each for one in found for each in one.times]
    for one in found:
        one.transport.abort()
    return {
        "requests_per_s": done / took_s,
        "cpu_us_per_request": 1e6 * cpu_s / max(1, done),
        "p50_ms": 1000 * statistics.median(times),
        "p99_ms": 1000 * statistics.quantiles(times, n=100)[98],
    }


class Reader(asyncio.Protocol):
    """One endless stream, as its reader sees it."""

    def __init__(self, request: bytes) -> None:
        self._request, self._tail = request, b""
        self.events = 0
        self.late_s: list[float] | None = None
        self.on_events: Callable[[int], None] = lambda count: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        data = self._tail + data
        whole = data.rfind(b"}\n\n") + 3
        if whole < 3:
            self._tail = data
            return
        self._tail = data[whole:]
        count = data.count(b'"made_ns":', 0, whole)
        self.events += count
        if self.late_s is not None:
            self.late_s += [
                (now - int(part[: part.index(b"}")])) / 1e9 for part in data[:whole].split(b'"made_ns":')[1:]
            ]
        self.on_events(count)


class Stepper:
    """Has the worker make the next step when all streams have the event before the last: a closed loop."""

    def __init__(self, worker: Address, streams: int) -> None:
        self._port, self._streams = worker.port, streams
        self._received = self._steps = 0
        self._transport: asyncio.WriteTransport | None = None

    async def start(self) -> None:
        """Connect to the worker, past the router, and begin."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", self._port)
        for _ in range(_WINDOW):
            self._step()

    def stop(self) -> None:
        """No more steps."""
        assert self._transport is not None
        self._transport.abort()
        self._transport = None

    def received(self, count: int) -> None:
        """So many events have come."""
        self._received += count
        while self._transport is not None and self._received >= (self._steps - _WINDOW + 1) * self._streams:
            self._step()

    def _step(self) -> None:
        assert self._transport is not None
        self._steps += 1
        self._transport.write(b"GET /step HTTP/1.1\r\n\r\n")


async def streams(target: Target, worker: Address, seconds: float) -> Figures:
    """256 streams of one worker: CPU time and age of an event at an engine's pace, and events/s in a closed loop."""
    loop = asyncio.get_running_loop()
    fields: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Count."}]}
    request = request_of(target, fields | {"max_tokens": ENDLESS, "stream": True})
    host, _, port = target.url.removeprefix("http://").partition(":")
    readers = [(await loop.create_connection(lambda: Reader(request), host, int(port)))[1] for _ in range(STREAMS)]
    async with asyncio.timeout(10):
        while not all(reader.events for reader in readers):
            await asyncio.sleep(0.05)
    found = await _paced(target, worker, readers, seconds) | await _closed_loop(target, worker, readers, seconds)
    for reader in readers:
        reader.transport.abort()
    async with asyncio.timeout(10):
        while b'"streams": 0' not in await asyncio.to_thread(worker.get, "/health"):
            await asyncio.to_thread(worker.get, "/step")  # some routers notice only then that a client is gone
            await asyncio.sleep(0.05)
    return found


async def _paced(target: Target, worker: Address, readers: list[Reader], seconds: float) -> Figures:
    await asyncio.to_thread(worker.get, f"/steps/{PACE}")
    await asyncio.sleep(_WARM_S)
    late: list[float] = []
    for reader in readers:
        reader.late_s = late
    events, cpu_s, took_s = await _counted(target, readers, seconds)
    for reader in readers:
        reader.late_s = None
    await asyncio.to_thread(worker.get, "/steps/0")
    await asyncio.sleep(0.2)
    return {
        "event_cpu_us": 1e6 * cpu_s / max(1, events),
        "through": events / took_s / (PACE * STREAMS),
        "late_ms": 1000 * statistics.median(late),
        "late_p99_ms": 1000 * statistics.quantiles(late, n=100)[98],
    }


async def _closed_loop(target: Target, worker: Address, readers: list[Reader], seconds: float) -> Figures:
    stepper = Stepper(worker, len(readers))
    for reader in readers:
        reader.on_events = stepper.received
    await stepper.start()
    await asyncio.sleep(_WARM_S)
    events, cpu_s, took_s = await _counted(target, readers, seconds)
    stepper.stop()
    return {"events_per_s": events / took_s, "flood_cpu_us": 1e6 * cpu_s / max(1, events)}


async def _counted(target: Target, readers: list[Reader], seconds: float) -> tuple[int, float, float]:
    """Events, seconds of the router's CPUs, and seconds."""
    before, cpu_s, began = sum(reader.events for reader in readers), target.cpu_s(), time.monotonic()
    await asyncio.sleep(seconds)
    events = sum(reader.events for reader in readers) - before
    return events, target.cpu_s() - cpu_s, time.monotonic() - began


def run(folder: Path, starters: dict[str, Starter], rounds: int, seconds: float) -> dict[str, Any]:
    """All figures of this part, by number of connections and for streams."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet(folder, WORKERS, Configuration(sockets=[])))
        targets = [stack.enter_context(start(folder, fleet.workers)) for start in starters.values()]
        for connections in CONNECTIONS:
            runs = in_turns(targets, rounds, lambda target, count=connections: requests(target, count, seconds))  # type: ignore[misc]
            found[f"requests {connections}"] = {"medians": medians(runs), "runs": runs}
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet(folder, 1, Configuration(sockets=[])))
        folder_of_streams = folder / "streams"
        folder_of_streams.mkdir(0o700)
        targets = [stack.enter_context(start(folder_of_streams, fleet.workers)) for start in starters.values()]
        worker = fleet.workers[0]
        runs = in_turns(targets, rounds, lambda target: streams(target, worker, seconds))
        found[f"streams {STREAMS}"] = {"medians": medians(runs), "runs": runs}
    return found
