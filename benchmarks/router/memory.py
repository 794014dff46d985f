"""Memory of a router while two hours' worth of long documents go through it, all different, as fast as it goes."""

import asyncio
import itertools
import json
import random
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

from .client import Connection, post
from .fleet import MODEL, Fleet
from .stub.__main__ import Configuration
from .stub.answers import WORDS
from .targets import Starter, Target

DOCUMENTS = 14_400  # two a second for two hours
DOCUMENT_BYTES = 60_000  # about 15,000 tokens
WARM_SHARE = 1 / 3
_CONNECTIONS, _WORKERS, _SAMPLES = 32, 4, 20


class Library:
    """Documents without end, no two of which begin in the same way."""

    def __init__(self) -> None:
        rng = random.Random(3)
        self._text = "".join(rng.choices(WORDS, k=8 * DOCUMENT_BYTES // len(WORDS[0])))
        self._numbers = itertools.count()

    def next(self) -> bytes:
        """The body of a request to sum one up."""
        number = next(self._numbers)
        at = number * 7_919 % (len(self._text) - DOCUMENT_BYTES)
        content = f"Document {number}.{self._text[at : at + DOCUMENT_BYTES]}"
        return json.dumps(
            {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 4}
        ).encode()


async def read_all(target: Target, documents: int) -> list[float]:
    """Resident memory in MiB before, and after each twentieth of the documents. Raises RuntimeError for a refusal."""
    library, sizes = Library(), [target.rss_mib()]
    every = max(1, documents // _SAMPLES)
    left = iter(range(1, documents + 1))

    async def client() -> None:
        connection = await Connection.open(target)
        for number in left:
            answer = await connection.ask(post(target, "/v1/chat/completions", library.next()))
            if answer.status != 200:
                raise RuntimeError(f"{target.name}: {answer.status} {answer.error} {bytes(answer.body[:200])!r}")
            if number % every == 0:
                sizes.append(target.rss_mib())
            if connection.lost:
                connection = await Connection.open(target)
        connection.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CONNECTIONS):
            tasks.create_task(client())
    return sizes


def run(folder: Path, starters: dict[str, Starter], documents: int) -> dict[str, Any]:
    """For each router, MiB after each twentieth, and the growth since a third of them were read."""
    found = {}
    for name, start in starters.items():
        home = folder / f"memory-{name.replace(' ', '-')}"
        home.mkdir(0o700)
        with ExitStack() as stack:
            fleet = stack.enter_context(Fleet(home, _WORKERS, Configuration(sockets=[])))
            target = stack.enter_context(start(home, fleet.workers))
            sizes = uvloop.run(read_all(target, documents))
        warm = sizes[round(WARM_SHARE * (len(sizes) - 1))]
        found[name] = {"growth_mib": sizes[-1] - warm, "mib": [round(size, 1) for size in sizes]}
        print(f"memory: {name}: {found[name]}", file=sys.stderr)
    return found
