"""Routers before two workers of our own engine (SmolLM2-135M-Instruct): shared prefixes, and chaos.

- sharing: eight clients that each ask as soon as they are answered, in bfloat16. Prompts have about 600 tokens
  of one of six prefixes, and the KV cache of a worker holds about four.
- chaos: eight clients, greedy answers in float32, one worker killed every 20 seconds and replaced. An answer is right
  if it is what one undisturbed worker said to the same request.
"""

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

from slurminfer.core.net.sockets import hold_port
from slurminfer.quant.models import resolve

from .. import GIVEN
from .client import Answer, Connection, request_of
from .fleet import MODEL, Address
from .measure import Figures, quantile
from .routers import straight
from .targets import Starter, Target
from .verdict import Expected, Verdict, judge

WORKERS, CLIENTS = 2, 8
_PREFIXES, _PREFIX_WORDS, _KV_GIB = 6, 450, 0.055
_QUESTIONS, _ANSWER_TOKENS = 16, 48
_KILL_EVERY_S, _REPLACED_AFTER_S = 20.0, 2.0
_START_S, _PATIENCE_S = 120.0, 120.0
_CAPACITY = 8
_SHARING = ("--dtype", "bfloat16", "--kv-cache-gib", str(_KV_GIB))
_CHAOS = ("--dtype", "float32", "--kv-cache-gib", "0.25")
_TOPICS = ("rivers", "bread", "the moon", "chess", "bicycles", "rain", "trains", "bees")


class Engine:
    """One process of our engine, at a Unix socket and a port."""

    def __init__(self, folder: Path, serial: int, port: int, options: tuple[str, ...]) -> None:
        self.address = Address(folder / f"engine-{serial}.sock", port)
        argv = [sys.executable, "-m", "slurminfer.nodes.native", "--model", str(resolve("demo")), "--threads", "1"]
        argv += ["--uds", str(self.address.socket), "--host", "127.0.0.1", "--port", str(port)]
        argv += ["--served-model-name", MODEL, "--max-running-requests", str(_CAPACITY), *options]
        self._log = folder / f"engine-{serial}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=GIVEN | {"SLURMINFER_LOCAL": "1"})

    def wait(self) -> None:
        """Return when it serves. Raises RuntimeError."""
        until = time.monotonic() + _START_S
        while self.process.poll() is None and time.monotonic() < until:
            try:
                urllib.request.urlopen(self.address.url + "/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.2)
        said = self._log.read_text(encoding="utf-8", errors="replace")[-1500:]
        raise RuntimeError(f"our engine does not start: {said}")

    def kill(self) -> None:
        """End it at once, and what it has started."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Engines:
    """The workers."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self._options, self._serials = folder, options, WORKERS
        self.engines = [Engine(folder, number, _free_port(), options) for number in range(WORKERS)]
        for engine in self.engines:
            engine.wait()

    def __enter__(self) -> "Engines":
        return self

    def __exit__(self, *exc: object) -> None:
        for engine in self.engines:
            engine.kill()

    @property
    def workers(self) -> list[Address]:
        """Where they listen."""
        return [engine.address for engine in self.engines]

    def restart(self, number: int) -> None:
        """Start another one at the same port and a new socket, and wait for it."""
        port, serial = self.engines[number].address.port, self._serials
        self._serials += 1
        self.engines[number] = Engine(self._folder, serial, port, self._options)
        self.engines[number].wait()


def _free_port() -> int:
    with hold_port("127.0.0.1") as held:
        return int(held.getsockname()[1])


async def ask(
    connection: Connection | None, target: Target, fields: dict[str, Any]
) -> tuple[Connection | None, Answer]:
    """An answer, and the connection for the next request."""
    try:
        if connection is None or connection.lost:
            connection = await Connection.open(target)
        async with asyncio.timeout(_PATIENCE_S):
            return connection, await connection.ask(request_of(target, fields))
    except (OSError, TimeoutError) as error:
        return None, Answer(time.monotonic(), error=type(error).__name__, first_s=_PATIENCE_S)


async def sharing(target: Target, engines: Engines, seconds: float) -> Figures:
    """Answers a minute, time to the first token, and the part of the prompts that was in a cache."""
    rng, ends, answers = random.Random(5), time.monotonic() + seconds, list[Answer]()
    prefixes = [" ".join(random.Random(number).choices(_TOPICS, k=_PREFIX_WORDS)) for number in range(_PREFIXES)]

    async def client() -> None:
        connection = None
        while time.monotonic() < ends:
            content = f"{rng.choice(prefixes)} {rng.random()}: what is this about?"
            fields = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 16,
                      "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
            connection, answer = await ask(connection, target, fields)
            answers.append(answer)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(client())
    usages = [usage for answer in answers if (usage := usage_in(bytes(answer.body)))]
    cached = sum((usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0) for usage in usages)
    waits = [answer.first_s for answer in answers]
    return {
        "answers_per_min": 60 * len(usages) / seconds,
        "failed": len(answers) - len(usages),
        "p50_ttft_s": quantile(waits, 0.5),
        "p90_ttft_s": quantile(waits, 0.9),
        "cached": cached / max(1, sum(usage["prompt_tokens"] for usage in usages)),
    }


def usage_in(body: bytes) -> dict[str, Any]:
    """The usage that a complete stream says at its end; empty if there is none."""
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event.startswith(b"data: {")]
    if not body.endswith(b"data: [DONE]\n\n") or not events:
        return {}
    return json.loads(events[-1]).get("usage") or {}


def questions() -> list[dict[str, Any]]:
    """Greedy requests of both kinds, most of them streams."""
    found = []
    for number in range(_QUESTIONS):
        asked = f"Write {number + 2} sentences about {_TOPICS[number % len(_TOPICS)]}."
        fields: dict[str, Any] = {"model": MODEL, "max_tokens": _ANSWER_TOKENS, "temperature": 0}
        fields |= {"prompt": asked} if number % 3 == 0 else {"messages": [{"role": "user", "content": asked}]}
        found.append(fields | ({} if number % 5 == 0 else {"stream": True, "stream_options": {"include_usage": True}}))
    return found


async def undisturbed(worker: Target, asked: list[dict[str, Any]]) -> list[Expected]:
    """What one worker says to each request, in one piece."""
    return await asyncio.gather(*(_undisturbed(worker, fields) for fields in asked))


async def _undisturbed(worker: Target, fields: dict[str, Any]) -> Expected:
    plain = {key: value for key, value in fields.items() if not key.startswith("stream")}
    connection, answer = await ask(None, worker, plain)
    if connection is not None:
        connection.close()
    said = json.loads(bytes(answer.body))
    if answer.status != 200:
        raise RuntimeError(f"the undisturbed answer is {answer.status}: {said}")
    choice, usage = said["choices"][0], said["usage"]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    return Expected(text, choice["finish_reason"], usage["completion_tokens"], usage["prompt_tokens"])


class Storm:
    """Clients with greedy requests, while workers are killed."""

    def __init__(self, target: Target, engines: Engines, asked: list[dict[str, Any]], expected: list[Expected]) -> None:
        self._target, self._engines = target, engines
        self._asked, self._expected = asked, expected
        self._counts, self._reasons = Counter[str](), Counter[str]()

    async def run(self, seconds: float) -> dict[str, Any]:
        """How the requests ended."""
        ends = time.monotonic() + seconds
        killing = asyncio.create_task(self._kill(seconds))
        beating = asyncio.create_task(self._beat())
        await asyncio.gather(*(self._client(number, ends) for number in range(CLIENTS)))
        await killing
        beating.cancel()
        counts = {str(verdict): self._counts[verdict] for verdict in Verdict if verdict is not Verdict.RESENT}
        return counts | {"killed": self._counts["killed"], "reasons": dict(self._reasons.most_common(8))}

    async def _client(self, number: int, ends: float) -> None:
        connection, rng = None, random.Random(number)
        while time.monotonic() < ends:
            at = rng.randrange(len(self._asked))
            connection, answer = await ask(connection, self._target, self._asked[at])
            verdict, reason = judge(answer, self._expected[at], "stream" in self._asked[at])
            self._counts[verdict] += 1
            if verdict is not Verdict.RIGHT:
                self._reasons[f"{verdict}: {reason[:200]}"] += 1
                await asyncio.sleep(0.5)

    async def _kill(self, seconds: float) -> None:
        records = self._target.records
        for number in range(int(seconds / _KILL_EVERY_S)):
            await asyncio.sleep(_KILL_EVERY_S - _REPLACED_AFTER_S)
            victim = number % WORKERS
            self._engines.engines[victim].kill()
            self._counts["killed"] += 1
            await asyncio.sleep(_REPLACED_AFTER_S)
            if records is not None:
                records.gone(victim, "killed")
            await asyncio.to_thread(self._engines.restart, victim)
            if records is not None:
                records.add(victim, self._engines.workers[victim])

    async def _beat(self) -> None:
        while self._target.records is not None:
            await asyncio.sleep(5)
            self._target.records.beat()


def run(
    folder: Path, sharers: dict[str, Starter], judged: dict[str, Starter], seconds: float
) -> dict[str, dict[str, Any]]:
    """Both parts for each of its routers, each with engines of its own."""
    found: dict[str, dict[str, Any]] = {"sharing": {}, "chaos": {}}
    for name, start in sharers.items():
        with ExitStack() as stack:
            engines, target = _started(stack, folder, f"sharing-{name}", start, _SHARING)
            found["sharing"][name] = uvloop.run(sharing(target, engines, seconds))
        print(f"native, sharing: {name}: {found['sharing'][name]}", file=sys.stderr)
    asked, expected = questions(), list[Expected]()
    for name, start in judged.items():
        with ExitStack() as stack:
            engines, target = _started(stack, folder, f"chaos-{name}", start, _CHAOS)
            worker = stack.enter_context(straight(folder, engines.workers))
            expected = expected or uvloop.run(undisturbed(worker, asked))
            found["chaos"][name] = uvloop.run(Storm(target, engines, asked, expected).run(seconds))
        print(f"native, chaos: {name}: {found['chaos'][name]}", file=sys.stderr)
    return found


def _started(
    stack: ExitStack, folder: Path, title: str, start: Starter, options: tuple[str, ...]
) -> tuple[Engines, Target]:
    home = folder / f"native-{title.replace(', ', '-').replace(' ', '-')}"
    home.mkdir(0o700)
    engines = stack.enter_context(Engines(home, *options, "--context-length", "1536"))
    return engines, stack.enter_context(start(home, engines.workers, capacity=_CAPACITY))
