"""Streams while workers are killed, stopped, and answer nonsense; and while our relays are killed.

Four good workers, and four more beside them: one is frozen for a while (SIGSTOP), one answers everything with 400
from the beginning, one answers garbage and one closes after its headers, both in turns with being good. Every ten
seconds (`--kill-every`) one of the good four is killed and another one takes its place: for us under a new name, for
the others at the same port.

A 400 is the client's fault wherever the router cannot know better, so it is passed on and counted apart (`refused`): a
router that asks its workers for a token before it trusts them never meets this one. An answer whose relay was killed is
asked again by the client, as OpenAI's clients do after a broken connection, and counted apart too (`resent`).
"""

import asyncio
import itertools
import random
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import uvloop

from .client import Answer, Connection, request_of
from .fleet import MODEL, Fleet
from .stub.__main__ import Configuration
from .stub.answers import TOKENS, WORDS
from .stub.engine import Costs
from .stub.worker import Mode
from .targets import Starter, Target, end
from .verdict import Expected, Verdict, judge

STREAMS, WHOLE = 200, 20  # clients that stream, and that want their answers in one piece
GOOD, FROZEN, REFUSING, GARBAGE, HEADERS = 4, 4, 5, 6, 7  # numbers of workers
KILL_EVERY_S, REPLACED_AFTER_S, BROKEN_S = 10.0, 2.0, 15.0
FREEZE_AT_S, FROZEN_S = 18.0, 30.0
RELAY_EVERY_S = 23.0
_COSTS = Costs(step_s=0.05, prefill_rate=50_000, batch=128)
_CAPACITY = 64
_PATIENCE_S = 90.0
_RETRY_S = 0.5


def fields_of(rng: random.Random, stream: bool) -> dict[str, Any]:
    """A request of any kind that failover must get right."""
    text = " ".join(rng.choices(WORDS, k=rng.randint(5, 200)))
    limit = rng.randint(20, 160)
    fields: dict[str, Any] = {"model": MODEL, "max_tokens": limit, "temperature": 0}
    if rng.random() < 0.7:
        fields["messages"] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    else:
        fields["prompt"] = text
    if rng.random() < 0.2:
        fields["stop"] = ["b ba", "".join(rng.choices(TOKENS, k=2))]
    if stream:
        fields["stream"] = True
    if stream and rng.random() < 0.5:
        fields["stream_options"] = {"include_usage": True}
    return fields


class Storm:
    """One router, its clients, and what happens to its workers."""

    def __init__(self, target: Target, fleet: Fleet, seconds: float, kill_every_s: float) -> None:
        self._target, self._fleet = target, fleet
        self._seconds, self._kill_every_s = seconds, kill_every_s
        self._cut_off: set[int] = set()  # ports of clients whose relay was killed
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.first_s: list[float] = []

    async def run(self) -> dict[str, Any]:
        """Let clients ask for so long, and wait for their last answers."""
        self._ends = time.monotonic() + self._seconds
        events = [self._kill_workers(), self._freeze(), self._break(GARBAGE, Mode.GARBAGE), self._beat()]
        events += [self._break(HEADERS, Mode.HEADERS, after_s=BROKEN_S / 2)]
        events += [self._kill_relays()] if self._target.records is not None else []
        disturbing = [asyncio.create_task(event) for event in events]
        clients = [self._client(number, stream=number < STREAMS) for number in range(STREAMS + WHOLE)]
        await asyncio.gather(*clients)
        for task in disturbing:
            task.cancel()
        for result in await asyncio.gather(*disturbing, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        return self._found()

    def _found(self) -> dict[str, Any]:
        counts = {str(verdict): self.counts[verdict] for verdict in Verdict}
        return counts | {"killed": self.counts["killed"], "relays_killed": self.counts["relays killed"],
                         "reasons": dict(self.reasons.most_common(12))}  # fmt: skip

    async def _client(self, number: int, stream: bool) -> None:
        rng, connection = random.Random(number), None
        await asyncio.sleep(rng.random())
        while time.monotonic() < self._ends:
            fields = fields_of(rng, stream)
            connection = await self._answered(connection, fields, Expected.of(fields), stream)
        if connection is not None:
            connection.close()

    async def _answered(
        self, connection: Connection | None, fields: dict[str, Any], expected: Expected, stream: bool
    ) -> Connection | None:
        """Ask until there is a verdict; the connection for the next request."""
        request = request_of(self._target, fields)
        while True:
            connection, answer = await self._ask(connection, request)
            if not answer.complete and connection is not None and connection.port in self._cut_off:
                self._cut_off.remove(connection.port)
                self.counts[Verdict.RESENT] += 1
                await asyncio.sleep(_RETRY_S)
                continue
            verdict, reason = judge(answer, expected, stream)
            self.counts[verdict] += 1
            if verdict is not Verdict.RIGHT:
                self.reasons[f"{verdict}: {reason[:160]}"] += 1
                await asyncio.sleep(_RETRY_S)
            return connection

    async def _ask(self, connection: Connection | None, request: bytes) -> tuple[Connection | None, Answer]:
        try:
            if connection is None or connection.lost:
                connection = await Connection.open(self._target)
                self._cut_off.discard(connection.port)
            async with asyncio.timeout(_PATIENCE_S):
                return connection, await connection.ask(request)
        except (OSError, TimeoutError) as error:
            if connection is not None:
                connection.close()
            return None, Answer(time.monotonic(), error=f"{type(error).__name__}")

    async def _kill_workers(self) -> None:
        replaced_after_s = min(REPLACED_AFTER_S, self._kill_every_s / 2)
        for number in range(int(self._seconds / self._kill_every_s)):
            await asyncio.sleep(self._kill_every_s - replaced_after_s)
            victim = number % GOOD
            self._fleet.processes[victim].kill()
            self.counts["killed"] += 1
            await asyncio.sleep(replaced_after_s)
            if self._target.records is not None:
                self._target.records.gone(victim, "killed")
            await asyncio.to_thread(self._fleet.restart, victim)
            if self._target.records is not None:
                self._target.records.add(victim, self._fleet.workers[victim])

    async def _freeze(self) -> None:
        await asyncio.sleep(min(FREEZE_AT_S, self._seconds / 4))
        self._fleet.processes[FROZEN].signal(signal.SIGSTOP)
        await asyncio.sleep(FROZEN_S)
        self._fleet.processes[FROZEN].signal(signal.SIGCONT)

    async def _break(self, number: int, mode: Mode, after_s: float = 0.0) -> None:
        worker = self._fleet.workers[number]
        await asyncio.sleep(after_s)
        for current in itertools.cycle((mode, Mode.GOOD)):
            await asyncio.to_thread(worker.get, f"/mode/{current}")
            await asyncio.sleep(BROKEN_S)

    async def _kill_relays(self) -> None:
        for number in range(int(self._seconds / RELAY_EVERY_S)):
            await asyncio.sleep(RELAY_EVERY_S)
            relays = self._target.relays()
            if relays:
                self._kill_relay(relays[number % len(relays)])

    def _kill_relay(self, relay: psutil.Process) -> None:
        """Kill -9 a relay, and note whose connections that cuts off."""
        relay.suspend()  # so that it accepts no further ones
        self._cut_off |= {one.raddr.port for one in relay.net_connections("tcp") if one.raddr}
        end(relay)
        self.counts["relays killed"] += 1

    async def _beat(self) -> None:
        while self._target.records is not None:
            await asyncio.sleep(5)
            self._target.records.beat()


def run(
    folder: Path, starters: dict[str, Starter], seconds: float, kill_every_s: float = KILL_EVERY_S
) -> dict[str, Any]:
    """The counts of each router, one after the other, each with workers of its own."""
    found = {}
    for name, start in starters.items():
        home = folder / f"chaos-{name.replace(' ', '-')}"
        home.mkdir(0o700)
        with ExitStack() as stack:
            configuration = Configuration(sockets=[], costs=_COSTS, model=MODEL)
            fleet = stack.enter_context(Fleet(home, HEADERS + 1, configuration, apart=True))
            target = stack.enter_context(start(home, fleet.workers, capacity=_CAPACITY))
            fleet.workers[REFUSING].get(f"/mode/{Mode.REFUSING}")
            found[name] = uvloop.run(Storm(target, fleet, seconds, kill_every_s).run())
            print(f"chaos: {name}: {found[name]}", file=sys.stderr)
    return found
