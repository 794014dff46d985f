"""Failures of routers that have been reported in public, each tried at every router."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

from .client import Answer, Connection, request_of
from .fleet import MODEL, Address, Fleet
from .measure import Figures, quantile
from .stub.__main__ import Configuration
from .stub.engine import Costs
from .stub.worker import Mode
from .targets import Starter, Target
from .verdict import Expected, Verdict, judge

_CONTEXT = 1_000
_PATIENCE_S = 30.0
_COSTS = Costs(step_s=0.02, batch=64)


@dataclass(frozen=True, slots=True)
class Case:
    """One failure: how many workers there are, and what is done."""

    workers: int
    done: Callable[[Target, list[Address]], Awaitable[Figures]]


def question(number: int, *, stream: bool = False, words: int = 20) -> dict[str, object]:
    """A request for eight tokens."""
    content = f"{number}:" + " word" * words
    fields = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 8, "ignore_eos": True}
    return fields | ({"stream": True} if stream else {})


async def ask(target: Target, fields: dict[str, object]) -> Answer:
    """The answer to one request on a connection of its own."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            connection = await Connection.open(target)
            try:
                return await connection.ask(request_of(target, fields))
            finally:
                connection.close()
    except (OSError, TimeoutError) as error:
        return Answer(began, error=type(error).__name__, took_s=time.monotonic() - began)


async def ask_all(
    target: Target, count: int, *, stream: bool = False, at_once: int = 64
) -> list[tuple[Answer, Verdict]]:
    """Valid requests, so many at a time."""
    free = asyncio.Semaphore(at_once)

    async def one(number: int) -> tuple[Answer, Verdict]:
        fields = question(number, stream=stream)
        async with free:
            answer = await ask(target, fields)
        return answer, judge(answer, Expected.of(fields), stream)[0]

    return await asyncio.gather(*(one(number) for number in range(count)))


def counted(found: list[tuple[Answer, Verdict]]) -> Figures:
    """How the requests ended, and how long they took."""
    verdicts = Counter(verdict for _, verdict in found)
    times = [answer.took_s for answer, _ in found]
    counts = {str(verdict): float(count) for verdict, count in verdicts.items()}
    return counts | {"p50_s": quantile(times, 0.5), "p99_s": quantile(times, 0.99)}


async def over_length(target: Target, workers: list[Address]) -> Figures:
    """40 prompts that are too long, which are the client's fault, then 40 valid ones."""
    refused = [(await ask(target, question(number, words=_CONTEXT * 2))).status for number in range(40)]
    return counted(await ask_all(target, 40)) | {"answered_400": float(refused.count(400))}


async def crowd(target: Target, workers: list[Address]) -> Figures:
    """2,048 requests at the same moment."""
    return counted(await ask_all(target, 2_048, stream=True, at_once=2_048))


async def hung(target: Target, workers: list[Address]) -> Figures:
    """One worker of four accepts requests and never answers; its health page does."""
    await asyncio.to_thread(workers[0].get, f"/mode/{Mode.HANGING}")
    return counted(await ask_all(target, 400, stream=True, at_once=128))


async def headers_only(target: Target, workers: list[Address]) -> Figures:
    """One worker of four closes after `200` and the headers of a stream."""
    await asyncio.to_thread(workers[0].get, f"/mode/{Mode.HEADERS}")
    return counted(await ask_all(target, 400, stream=True))


async def oversized(target: Target, workers: list[Address]) -> Figures:
    """100 connections that say they send a gigabyte and send 2 MiB of it, and valid requests meanwhile."""
    before, loop = target.rss_mib(), asyncio.get_running_loop()
    host, _, port = target.url.removeprefix("http://").partition(":")
    key = f"Authorization: Bearer {target.key}\r\nContent-Type: application/json\r\n"
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{key}Content-Length: {1 << 30}\r\n\r\n".encode()
    storm = [(await loop.create_connection(asyncio.Protocol, host, int(port)))[0] for _ in range(100)]
    for transport in storm:
        transport.write(head + bytes(2 << 20))
    await asyncio.sleep(1)
    found = counted(await ask_all(target, 200))
    grown = target.rss_mib() - before
    for transport in storm:
        transport.abort()
    return found | {"grown_mib": grown}


CASES = {
    "over-length": Case(4, over_length),
    "2,048 at once": Case(8, crowd),
    "one hung": Case(4, hung),
    "headers only": Case(4, headers_only),
    "oversized": Case(4, oversized),
}


def run(folder: Path, starters: dict[str, Starter]) -> dict[str, dict[str, Figures]]:
    """The figures of each case and router, each with workers and a router of its own."""
    found: dict[str, dict[str, Figures]] = {}
    configuration = Configuration(sockets=[], costs=_COSTS, context=_CONTEXT)
    for number, (title, case) in enumerate(CASES.items()):
        for name, start in starters.items():
            home = folder / f"public-{number}-{name.replace(' ', '-')}"
            home.mkdir(0o700)
            with ExitStack() as stack:
                fleet = stack.enter_context(Fleet(home, case.workers, configuration))
                target = stack.enter_context(start(home, fleet.workers, capacity=_COSTS.batch))
                found.setdefault(title, {})[name] = uvloop.run(case.done(target, fleet.workers))  # type: ignore[arg-type]
            print(f"{title}: {name}: {found[title][name]}", file=sys.stderr)
    return found
