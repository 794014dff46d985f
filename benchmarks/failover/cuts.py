"""Streams of one engine, cut after an event and continued as the router does it: by its own code, without a router.

So that many cuts are seen in a short time.
"""

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from slurminfer.router.relay.stream.envelope import Envelope, read_envelope
from slurminfer.router.relay.stream.events import without_token_ids, without_usage
from slurminfer.router.relay.stream.resume import Finished, Impossible, plan, prepare
from slurminfer.router.relay.stream.transcript import Transcript

from .controls import CONTROLS, Control, Ids, repeats
from .questions import Question, places, with_stop
from .streams import Asker, Fields, Told, differences, path_of

_SHOWN = 12


@dataclass
class Found:
    """What has come of all cuts."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    tokens: int = 0  # of the undisturbed answers that tell their usage
    pieces: int = 0  # events with text of these

    def summary(self) -> dict[str, Any]:
        """As it is printed."""
        each = round(self.tokens / self.pieces, 3) if self.pieces else None
        return {**dict(sorted(self.counts.items())), "tokens_per_event": each, "examples": self.examples[:_SHOWN]}


class _Client:
    """One request, of which the engine's streams are cut."""

    def __init__(self, engine: str, asker: Asker, fields: Fields) -> None:
        self.body = json.dumps(fields, ensure_ascii=False).encode()
        self.path = path_of(fields)
        self.envelope: Envelope = read_envelope(self.path, "", self.body)
        self._engine, self._asker = engine, asker

    async def undisturbed(self) -> list[bytes]:
        """The events as the router gets them."""
        return _events(await self._asker.post(self.path, prepare(self.body, self.envelope, self._engine)))

    def seen(self, events: list[bytes]) -> Told:
        """What the client is told by them."""
        data = without_token_ids(b"".join(events))
        return Told.of(data if self.envelope.wants_usage else without_usage(data))

    async def continued(self, sent: list[bytes], again: int | None) -> list[bytes]:
        """The whole stream after a cut. `again`: so many events later it is cut once more."""
        transcript, events = Transcript(), list(sent)
        for event in sent:
            transcript.add(event)
        for cut in (None,) if again is None else (again, None):
            how = plan(self.envelope, self.body, transcript, self._engine)
            if isinstance(how, Impossible):
                raise RuntimeError(f"impossible: {how.reason}")
            if isinstance(how, Finished):
                return [*events, how.events]
            for event in _events(await self._asker.post(self.path, how.body))[:cut]:
                written = how.stitcher.feed(event) if how.stitcher else event
                transcript.add(written)
                events.append(written)
                if how.stitcher is not None and how.stitcher.finished:
                    return events
        return events


def _events(data: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in data.split(b"\n\n") if event]


class Cuts:
    """Cuts every question at several places."""

    def __init__(self, engine: str, asker: Asker, cuts: int, at_once: int) -> None:
        self._engine, self._asker, self._cuts = engine, asker, cuts
        self._control: Control = CONTROLS[engine](asker)
        self._at_once = asyncio.Semaphore(at_once)
        self.found = Found()

    async def run(self, asked: list[Question]) -> Found:
        """All of them, as many at once as were asked for."""
        await asyncio.gather(*(self._question(number, question) for number, question in enumerate(asked)))
        return self.found

    async def _question(self, number: int, question: Question) -> None:
        async with self._at_once:
            first = _Client(self._engine, self._asker, question.fields)
            fields = with_stop(question, first.seen(await first.undisturbed()).text)
            client = _Client(self._engine, self._asker, fields)
            events = await client.undisturbed()
            expected = client.seen(events)
            self._note(client, events, expected, fields)
            ids = await self._control.whole(fields)
            steady = ids.text == expected.text and client.seen(await client.undisturbed()).text == expected.text
            self.found.counts["unsteady answers"] += not steady
            drawn = random.Random(number)
            for cut in places(len(events), self._cuts, number):
                again = drawn.choice([None, None, 1, 3, 8])
                await self._cut(client, events[:cut], again, expected, (fields, ids, question.name))

    def _note(self, client: _Client, events: list[bytes], expected: Told, fields: Fields) -> None:
        self.found.counts["answers"] += 1
        self.found.counts["answers with a stop string"] += "stop" in fields
        self.found.counts["answers that end by themselves"] += expected.finish == ["stop"]
        counted = Told.of(b"".join(events)).usage
        if counted:
            self.found.tokens += counted[0][1]
            self.found.pieces += expected.pieces

    async def _cut(
        self, client: _Client, sent: list[bytes], again: int | None, expected: Told, about: tuple[Fields, Ids, str]
    ) -> None:
        fields, ids, kind = about
        kind += " with stop" if "stop" in fields else ""
        counts = self.found.counts
        counts["cuts"] += 1
        try:
            told = client.seen(await client.continued(sent, again))
        except RuntimeError as error:
            counts["lost"] += 1
            self.found.examples.append(f"{kind}, lost: {error}")
            return
        wrong = differences(told, expected)
        if not wrong:
            counts["equal"] += 1
            return
        before = client.seen(sent)
        if "text" in wrong and not await repeats(self._control, fields, ids, before.pieces):
            counts["different, and so by token ids"] += 1
            return
        counts["different"] += 1
        counts[f"different: {'+'.join(wrong)}: {kind}"] += 1
        self.found.examples.insert(0, example(kind, wrong, before.text, told, expected))


def example(kind: str, wrong: list[str], before: str, told: Told, expected: Told) -> str:
    """A difference in words."""
    for name in wrong:
        if name not in ("text", "end"):
            return f"{kind}: {name} {getattr(told, name)} for {getattr(expected, name)}; {wrong}"
    return (
        f"{kind}: after {before[-30:]!r} came {told.text[len(before) :][:40]!r} "
        f"for {expected.text[len(before) :][:40]!r} {told.error}"
    )
