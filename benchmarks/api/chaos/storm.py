"""All kinds of requests at once, again and again, while faults happen to the workers."""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from ...router.fleet import MODEL
from .questions import Question, questions
from .told import BrokeOffError, FormError, Json, read
from .workers import Workers

_SHOWN = 12


@dataclass(slots=True)
class Found:
    """What all rounds have come to."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)  # that lost their worker in the middle
    waited: Counter[str] = field(default_factory=Counter)  # whole answers that were not there when a worker was lost

    def summary(self) -> Json:
        """As it is written."""
        return {
            "wrong_answers": len(self.wrong), **dict(sorted(self.counts.items())), "examples": self.wrong[:_SHOWN],
            "lost_in_the_middle": dict(sorted(self.kinds.items())),
            "under_way_without_a_byte": dict(sorted(self.waited.items())),
        }  # fmt: skip


@dataclass(eq=False, slots=True)
class Stream:
    """One request and what has come of it."""

    name: str
    question: Question
    worker: str = ""
    status: int = 0
    data: bytes = b""
    broken: str = ""
    is_over: bool = False
    is_hit: bool = False  # its worker was lost after its first bytes


class Storm:
    """Clients of a router before `workers`."""

    def __init__(
        self, workers: Workers, session: aiohttp.ClientSession, tokens: int, kinds: Sequence[str] | None = None
    ) -> None:
        """`kinds`: names of the requests; by default all."""
        self._workers, self._session, self._tokens, self._kinds = workers, session, tokens, kinds
        self._questions: dict[str, Question] = {}
        self._expected: dict[str, Json] = {}
        self._random = random.Random(0)
        self._most_bytes = 0
        self._is_struck = asyncio.Event()
        self.found = Found()

    @property
    def fewest_losses(self) -> int:
        """How often each kind at least was under way when a worker was lost; streams, at the worker and begun."""
        counts = self.found.kinds + self.found.waited
        return min(counts[name] for name in self._questions)

    async def learn(self) -> None:
        """Ask for everything twice without a fault. Raises RuntimeError for what is not the same twice, or an error."""
        self._questions = {"chat": questions(MODEL, self._tokens)["chat"]}
        chat = self._read((await self._ask())[0])
        found = questions(MODEL, self._tokens, chat["choices"][0]["text"])
        self._questions = {name: found[name] for name in self._kinds or found}
        for _ in range(2):
            streams = await self._ask()
            for stream in streams:
                said = self._read(stream)
                self._most_bytes = max(self._most_bytes, len(stream.data))
                if self._expected.setdefault(stream.name, said) != said:
                    raise RuntimeError(f"{stream.name}: not the same: {self._expected[stream.name]}\n{said}")

    async def round(self, fault: str) -> None:
        """Everything at once, and a worker lost at some place of the answers."""
        await self._workers.ready()
        place = self._random.triangular(0.0, 0.8, 0.1)
        asked = asyncio.create_task(self._ask(lambda streams: self._strike(streams, fault, place)))
        for stream in await asked:
            self._judge(stream, fault)
        self._workers.clear()

    async def _ask(self, strike: Callable[[list[Stream]], Any] | None = None) -> list[Stream]:
        streams = [Stream(name, question) for name, question in self._questions.items()]
        self._random.shuffle(streams)
        self._is_struck.clear()
        tasks = [asyncio.create_task(self._one(stream)) for stream in streams if not stream.question.is_short]
        if strike is None:
            self._is_struck.set()
        else:
            tasks.append(asyncio.create_task(strike(streams)))
        short = [stream for stream in streams if stream.question.is_short]
        tasks += [asyncio.create_task(self._again_and_again(stream, streams)) for stream in short]
        await asyncio.gather(*tasks)
        return streams

    async def _again_and_again(self, stream: Stream, streams: list[Stream]) -> None:
        """Ask until a worker was lost; `streams` gets all but the first."""
        await self._one(stream)
        while not self._is_struck.is_set():
            streams.append(Stream(stream.name, stream.question))
            await self._one(streams[-1])

    async def _one(self, stream: Stream) -> None:
        fields = {name: value for name, value in stream.question.fields.items() if value is not None}
        try:
            async with self._session.post(stream.question.path, json=fields) as answer:
                stream.status, stream.worker = answer.status, answer.headers.get("x-slurminfer-worker", "")
                async for data in answer.content.iter_any():
                    stream.data += data
        except (aiohttp.ClientError, TimeoutError) as error:
            stream.broken = repr(error)
        stream.is_over = True

    async def _strike(self, streams: list[Stream], fault: str, place: float) -> None:
        """Once a stream is at some place, lose the worker with most kinds that have lost theirs least often."""
        least, long = place * self._most_bytes, [stream for stream in streams if not stream.question.is_short]
        while not any(len(stream.data) > least for stream in long if not stream.is_over):
            if sum(stream.is_over for stream in long) > len(long) * 0.6:
                break
            await asyncio.sleep(0.005)
        running = [stream for stream in streams if not stream.is_over and stream.data]
        worth: defaultdict[str, float] = defaultdict(float)
        for stream in running:
            worth[stream.worker] += 100.0 ** -self.found.kinds[stream.name]
        if not worth:
            self.found.counts["too late"] += 1
            self._is_struck.set()
            return
        victim = max(sorted(worth), key=lambda worker: worth[worker])
        for stream in running:
            stream.is_hit = stream.worker == victim
        self.found.waited.update(
            stream.name for stream in streams if not stream.question.is_stream and not (stream.is_over or stream.data)
        )
        self._workers.strike(victim, fault)
        self._is_struck.set()
        self.found.counts[f"faults: {fault}"] += 1

    def _read(self, stream: Stream) -> Json:
        if stream.broken or stream.status != 200:
            raise RuntimeError(f"{stream.name}: {stream.status} {stream.broken} {stream.data[:500]!r}")
        return read(stream.question.api, stream.data)

    def _judge(self, stream: Stream, fault: str) -> None:
        self.found.counts["answers"] += 1
        if stream.is_hit:
            self.found.counts["lost in the middle"] += 1
            self.found.kinds[stream.name] += 1
        try:
            said = self._read(stream)
        except (BrokeOffError, FormError, RuntimeError, ValueError, KeyError, IndexError, AttributeError) as error:
            self._wrong(stream, fault, repr(error))
        else:
            if said != self._expected[stream.name]:
                self._wrong(stream, fault, difference(self._expected[stream.name], said))

    def _wrong(self, stream: Stream, fault: str, what: str) -> None:
        self.found.wrong.append(f"{stream.name}, {fault}, {'hit' if stream.is_hit else 'not hit'}: {what}")


def difference(expected: Any, said: Any, at: str = "") -> str:
    """Where two answers differ first."""
    if isinstance(expected, dict) and isinstance(said, dict) and expected.keys() == said.keys():
        return next((difference(expected[k], said[k], f"{at}.{k}") for k in expected if expected[k] != said[k]), "")
    if isinstance(expected, list) and isinstance(said, list) and len(expected) == len(said):
        pairs = enumerate(zip(expected, said, strict=True))
        return next((difference(a, b, f"{at}[{n}]") for n, (a, b) in pairs if a != b), "")
    if isinstance(expected, str) and isinstance(said, str):
        shorter = min(len(expected), len(said))
        same = next((n for n, (a, b) in enumerate(zip(expected, said, strict=False)) if a != b), shorter)
        return f"{at}: at {same}: {said[same - 10 : same + 40]!r}, expected {expected[same - 10 : same + 40]!r}"
    return f"{at}: {json.dumps(said, default=str)[:300]}, expected {json.dumps(expected, default=str)[:300]}"
