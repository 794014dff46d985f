"""Load on an OpenAI endpoint from several processes, so that what is measured is not the one who asks."""

import asyncio
import multiprocessing
import random
import re
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from slurminfer.core.net.identity import client_context

_VOCABULARY = (1000, 40000)  # token ids that prompts are drawn from
_USAGE = re.compile(rb'"completion_tokens": ?(\d+)')


@dataclass(frozen=True)
class Answered:
    """One streamed request. Times in seconds since the epoch."""

    began: float
    first: float | None  # the first event
    ended: float
    tokens: int  # as the engine counts them
    error: str = ""


@dataclass(frozen=True)
class ModelEndpoint:
    """A served model, and how to reach it."""

    url: str  # without /v1
    key: str
    model: str
    socket: str | None = None  # the Unix socket to go through
    identity: Path | None = None  # of a gate at `url`

    def connector(self) -> aiohttp.BaseConnector:
        """Connections to it, as many as are wanted."""
        if self.socket is not None:
            return aiohttp.UnixConnector(self.socket, limit=0)
        return aiohttp.TCPConnector(limit=0, ssl=client_context(self.identity) if self.identity else True)


@dataclass(frozen=True)
class ClosedLoopLoad:
    """Streams that ask one request after the other, each with a random prompt of its own."""

    streams: int
    requests: int  # of each stream
    prompt_tokens: int
    tokens: int
    seed: int
    until: float | None = None  # no request begins later
    spread_s: float = 0.0  # streams begin one after the other within so many seconds


def run(endpoint: ModelEndpoint, load: ClosedLoopLoad, processes: int) -> list[Answered]:
    """All requests of a load, its streams spread over processes."""
    shares = [load.streams // processes + (i < load.streams % processes) for i in range(processes)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        list(pool.map(_ready, range(processes)))  # so that all begin at once
        parts = [pool.submit(_share, endpoint, load, share, index) for index, share in enumerate(shares) if share]
        return [answer for part in parts for answer in part.result()]


def duration(answers: Sequence[Answered]) -> float:
    """Seconds from the first that began to the last that ended."""
    return max(a.ended for a in answers) - min(a.began for a in answers)


def speed(answers: Sequence[Answered]) -> float:
    """Tokens per second over all of them."""
    return sum(a.tokens for a in answers) / duration(answers)


def _ready(_: int) -> None:
    time.sleep(0.2)  # so that each process takes one


def _share(endpoint: ModelEndpoint, load: ClosedLoopLoad, streams: int, index: int) -> list[Answered]:
    return asyncio.run(_streams(endpoint, load, streams, index))


async def _streams(endpoint: ModelEndpoint, load: ClosedLoopLoad, streams: int, index: int) -> list[Answered]:
    headers = {"Authorization": f"Bearer {endpoint.key}"}
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(
        endpoint.url, headers=headers, timeout=timeout, connector=endpoint.connector()
    ) as client:

        async def stream(number: int) -> list[Answered]:
            drawn = random.Random(f"{load.seed} {index} {number}")
            found = []
            await asyncio.sleep(load.spread_s * (number / streams))
            for _ in range(load.requests):
                if load.until is not None and time.time() > load.until:
                    break
                prompt = [drawn.randrange(*_VOCABULARY) for _ in range(load.prompt_tokens)]
                found.append(await _ask(client, endpoint.model, prompt, load.tokens))
            return found

        return [answer for answers in await asyncio.gather(*map(stream, range(streams))) for answer in answers]


async def _ask(client: aiohttp.ClientSession, model: str, prompt: list[int], tokens: int) -> Answered:
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    began, first, last, error = time.time(), None, b"", ""
    try:
        async with client.post("/v1/completions", json=body) as response:
            if response.status != 200:
                text = (await response.text())[:200]
                return Answered(began, None, time.time(), 0, f"HTTP {response.status}: {text}")
            async for chunk in response.content.iter_any():
                first = first or time.time()
                last = (last + chunk)[-4000:]
    except aiohttp.ClientError as broken:
        error = repr(broken)
    counts = _USAGE.findall(last)
    if not counts and not error:
        error = f"no usage at the end of the stream: {last[-300:].decode(errors='replace')}"
    return Answered(began, first, time.time(), int(counts[-1]) if counts else 0, error)
