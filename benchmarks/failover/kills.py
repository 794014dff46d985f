"""Engines that are killed (SIGKILL) behind the router while they stream to many clients.

"server" kills the process that listens, "core" the one that computes, so that the server itself finds out and says so.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from ..router.ours import ours
from ..router.targets import Target
from .controls import CONTROLS, repeats
from .cuts import example
from .engines import Engine, Engines
from .questions import not_continuable, questions, with_stop
from .streams import Asker, Fields, Told, differences, path_of

KILLS: dict[str, Callable[[Engine], None]] = {"server": Engine.kill, "core": Engine.kill_core}
_WORKER = "x-slurminfer-worker"
_READ = 8  # pieces of text that half of the streams must have before the kill
_SHOWN = 12


@dataclass(eq=False)
class Stream:
    """One client's request and what has come of it."""

    fields: Fields
    expected: Told | None  # None: it cannot go on
    worker: str = ""  # that has begun it
    data: bytes = b""
    status: int = 0
    is_over: bool = False
    broken: str = ""
    cut_after: int | None = None  # pieces of text that had come when its worker was killed

    def told(self) -> Told:
        """What whole events say."""
        return Told.of(self.data[: self.data.rfind(b"\n\n") + 2])


@dataclass
class Outcome:
    """What one kill has done."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    tokens: int = 0  # of the streams that were not cut and tell their usage
    pieces: int = 0  # events with text of these

    def summary(self) -> dict[str, Any]:
        """As it is printed."""
        each = round(self.tokens / self.pieces, 3) if self.pieces else None
        return {**dict(sorted(self.counts.items())), "tokens_per_event": each, "examples": self.examples[:_SHOWN]}


class Kill:
    """Streams through the router, of which one worker is killed."""

    def __init__(self, target: Target, engines: Engines, given: Any) -> None:
        self._target, self._engines, self._given = target, engines, given

    async def run(self, name: str, victim: int) -> dict[str, Any]:
        """Kill worker `victim`; what its clients saw."""
        survivor = self._engines.engines[-1]
        async with Asker(survivor.address.socket) as asker:
            streams = await self._streams(asker)
            headers = {"Authorization": f"Bearer {self._target.key}"}
            timeout = aiohttp.ClientTimeout(total=240)
            async with aiohttp.ClientSession(self._target.url, headers=headers, timeout=timeout,
                                             connector=aiohttp.TCPConnector(limit=0)) as session:  # fmt: skip
                tasks = [asyncio.create_task(self._stream(session, stream)) for stream in streams]
                worker = self._record_id(victim)
                await self._until_streaming(streams, worker)
                KILLS[name](self._engines.engines[victim])
                for stream in streams:
                    if stream.worker == worker and not stream.is_over:
                        stream.cut_after = stream.told().pieces
                await asyncio.gather(*tasks)
            outcome = Outcome()
            for stream in streams:
                await self._judge(stream, asker, outcome)
        assert self._target.records is not None
        self._target.records.gone(victim, "killed")
        return outcome.summary()

    def _record_id(self, number: int) -> str:
        assert self._target.records is not None
        return self._target.records.current[number].id

    async def _streams(self, asker: Asker) -> list[Stream]:
        at_once = asyncio.Semaphore(self._given.at_once)

        async def undisturbed(fields: Fields) -> Told:
            async with at_once:
                return Told.of(await asker.post(path_of(fields), fields))

        async def stream(question: Any) -> Stream:
            fields = with_stop(question, (await undisturbed(question.fields)).text)
            return Stream(fields, await undisturbed(fields))

        asked = questions(self._given.streams, self._given.tokens)
        found = await asyncio.gather(*map(stream, asked))
        return [*found, *(Stream(fields, None) for fields in not_continuable() * self._given.workers)]

    async def _stream(self, session: aiohttp.ClientSession, stream: Stream) -> None:
        try:
            async with session.post(path_of(stream.fields), json=stream.fields) as answer:
                stream.status, stream.worker = answer.status, answer.headers.get(_WORKER, "")
                async for data in answer.content.iter_any():
                    stream.data += data
        except (aiohttp.ClientError, TimeoutError) as error:
            stream.broken = repr(error)
        stream.is_over = True

    async def _until_streaming(self, streams: list[Stream], worker: str) -> None:
        def is_reading(stream: Stream) -> bool:
            return stream.is_over or stream.data.count(b"data: ") > _READ

        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                while sum(map(is_reading, streams)) < len(streams) / 2 or not any(
                    is_reading(stream) and not stream.is_over for stream in streams if stream.worker == worker
                ):
                    await asyncio.sleep(0.02)

    async def _judge(self, stream: Stream, asker: Asker, outcome: Outcome) -> None:
        counts, told = outcome.counts, stream.told()
        is_cut = stream.cut_after is not None
        counts["streams"] += 1
        counts["of the killed worker"] += is_cut
        counts["of these, with text before"] += bool(stream.cut_after)
        if stream.expected is None:
            is_told = bool(told.error) and not told.done
            end = "error event" if is_told else "whole" if told.done == 1 and not stream.broken else "lost"
            counts[f"not continuable{', killed' if stream.cut_after else ''}: {end}"] += 1
            if end == "lost":
                outcome.examples.append(f"not continuable: {stream.status} {stream.broken} {stream.data[-300:]!r}")
            return
        if stream.broken or stream.status != 200 or told.error or told.done != 1:
            counts["lost"] += 1
            outcome.examples.append(f"lost: {stream.status} {stream.broken} {told.error} {stream.data[-200:]!r}")
            return
        if told.usage and not is_cut:
            outcome.tokens, outcome.pieces = outcome.tokens + told.usage[0][1], outcome.pieces + told.pieces
        wrong = differences(told, stream.expected)
        group = "continued" if is_cut else "undisturbed"
        if not wrong:
            counts[f"{group}: equal"] += 1
        elif "text" in wrong and not await self._repeats(stream, asker):
            counts[f"{group}: different, and so by token ids"] += 1
        else:
            counts[f"{group}: different"] += 1
            before = "".join(told.text[: stream.cut_after or 0])
            outcome.examples.insert(0, f"{group}, " + example(path_of(stream.fields), wrong, before, told,
                                                             stream.expected))  # fmt: skip

    async def _repeats(self, stream: Stream, asker: Asker) -> bool:
        control = CONTROLS[self._given.engine](asker)
        ids = await control.whole(stream.fields)
        assert stream.expected is not None
        return ids.text == stream.expected.text and await repeats(control, stream.fields, ids, stream.cut_after or 0)


async def _kill_all(target: Target, engines: Engines, given: Any) -> dict[str, Any]:
    async def beat() -> None:
        while target.records is not None:
            await asyncio.sleep(5)
            target.records.beat()

    beating = asyncio.create_task(beat())
    found = {}
    for victim, name in enumerate(given.kills):
        found[name] = await Kill(target, engines, given).run(name, victim)
        print(json.dumps({name: found[name]}, indent=1, ensure_ascii=False), flush=True)
    beating.cancel()
    return found


def run(folder: Path, engines: Engines, given: Any) -> dict[str, Any]:
    """Kill one worker after the other; the last one stays."""
    workers = [engine.address for engine in engines.engines]
    with ours(folder, workers, capacity=64, engine=given.engine) as target:
        return asyncio.run(_kill_all(target, engines, given))
