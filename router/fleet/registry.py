"""The view of all workers: what the run directory says, what probes see. Refreshed every second, never stored."""

import asyncio
import errno
import itertools
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import msgspec

from ...core.errors import SlurminferError
from ...core.records import WorkerState
from ...core.rundir import RunDirectory
from ..relay.connection import connection_to
from .records import Found, in_thread, merge, merge_blind, read_records
from .worker import Worker

LOOK_INTERVAL_S = 1.0
# For reading thousands of records: at most a tenth of the time.
_IDLE_SHARE = 9.0
# A filesystem may stand still; probes go on meanwhile, and the view stays as it is.
_READ_WAIT_S = 2.0
# An engine whose event loop is held up by a long prefill answers late, not never.
PROBE_TIMEOUT = aiohttp.ClientTimeout(total=5.0, sock_connect=2.0)
TRANSPORT_ERRORS = (aiohttp.ClientError, OSError)  # OSError includes TimeoutError
# Between an answer of 5xx and the question whether its worker still lives: a dying process takes a moment to end.
DYING_PAUSE_S = 0.1
_MOST_CARD_BYTES = 2**20
_MOST_COMPLAINTS = 20  # logged of one look
# What a connection fails with where the fault is this machine's or this process's, not the worker's.
_OWN_FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})

_log = logging.getLogger(__name__)


class Registry:
    """The workers by id. Only `watch` changes what they are; requests count themselves in and out."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._workers: dict[str, Worker] = {}
        self._retired: set[Worker] = set()  # whose connection may still carry requests
        self._probes: dict[Worker, asyncio.Task[None]] = {}
        self._checks: dict[Worker, asyncio.Task[bool]] = {}
        self._reading: asyncio.Future[Found] | None = None
        self._read_s = 0.0  # how long the last reading took
        self._complaints: set[str] = set()  # files that have been complained about
        self._blind_because = ""
        self._turns = itertools.count(1)

    def all(self) -> list[Worker]:
        """Every worker of the deployment, by id."""
        return list(self._workers.values())

    def choosable(self, model: str | None = None) -> list[Worker]:
        """The workers that may get a request now; of any model if `model` is None."""
        return [w for w in self._workers.values() if w.choosable and model in (None, w.record.model)]

    def serving(self, model: str) -> list[Worker]:
        """The workers of `model`, whatever their state."""
        return [worker for worker in self._workers.values() if worker.record.model == model]

    def models(self) -> list[str]:
        """The names of all models that a worker serves, has served or is going to serve."""
        return sorted({worker.record.model for worker in self._workers.values()})

    def counts(self) -> dict[str, int]:
        """Number of workers by state; `ready` ones that do not answer count as `unreachable`."""
        states = Counter(_standing(worker) for worker in self._workers.values())
        return {state: states[state] for state in ("ready", "unreachable", "starting", "draining", "gone")}

    @contextmanager
    def occupied(self, worker: Worker) -> Iterator[None]:
        """Count one request in flight at `worker`."""
        with worker.occupied(next(self._turns)):
            yield

    async def look(self) -> None:
        """Read the run directory and see every ready worker answer, or not."""
        await self._read()
        self._start_probes()
        await asyncio.gather(*self._probes.values())

    async def watch(self) -> None:
        """Keep the view fresh until cancelled. A slow probe holds up neither the others nor the next look."""
        try:
            while True:
                await asyncio.sleep(max(LOOK_INTERVAL_S, _IDLE_SHARE * self._read_s))
                try:
                    await self._look_again()
                except Exception as error:  # the next look may succeed
                    self._go_blind(f"a look failed: {error!r}")
        finally:
            for task in (*self._probes.values(), *self._checks.values()):
                task.cancel()

    async def _look_again(self) -> None:
        await self._read()
        self._start_probes()
        self._release_waiting()
        await self._close_retired()

    async def outlives(self, worker: Worker) -> bool:
        """Whether `worker`, which has just answered 5xx, is there a moment later and says that it is healthy."""
        if worker not in self._checks:
            self._checks[worker] = asyncio.create_task(self._check(worker))
        return await asyncio.shield(self._checks[worker])

    async def _check(self, worker: Worker) -> bool:
        try:
            await asyncio.sleep(DYING_PAUSE_S)
            await self._ask_health(worker)
            return worker.healthy and self._workers.get(worker.id) is worker
        finally:
            del self._checks[worker]

    async def close(self) -> None:
        """Close the connections to all workers, when no request is in flight any more."""
        self._retired.update(self._workers.values())
        for worker in self._retired:
            if worker.connection is not None:
                await worker.connection.close()

    async def _read(self) -> None:
        """Follow what the run directory says now. Whatever goes wrong with that, the view stays."""
        if self._reading is None:
            self._reading = in_thread(self._read_timed)
        done, _ = await asyncio.wait({self._reading}, timeout=_READ_WAIT_S)
        if not done:
            self._go_blind(f"{self._run.workers_path} is still being read")
            return
        reading, self._reading = self._reading, None
        error = reading.exception()
        if error is not None:
            self._go_blind(describe(error))
        elif self._workers and not reading.result().records and not reading.result().complaints:
            self._go_blind(f"{self._run.workers_path} has become empty")
        else:
            self._blind_because = ""
            self._follow(reading.result())

    def _read_timed(self) -> Found:
        began = time.monotonic()
        try:
            return read_records(self._run)
        finally:
            self._read_s = time.monotonic() - began

    def _follow(self, found: Found) -> None:
        new = sorted(found.complaints.keys() - self._complaints)
        for name in new[:_MOST_COMPLAINTS]:
            _log.warning("%.1000s", found.complaints[name])
        if len(new) > _MOST_COMPLAINTS:
            _log.warning("%d more worker files ignored", len(new) - _MOST_COMPLAINTS)
        self._complaints = set(found.complaints)
        self._replace(merge(self._workers, found, time.monotonic()))

    def _go_blind(self, reason: str) -> None:
        if reason != self._blind_because:
            _log.warning("the view of the workers stays as it was: %s", reason)
        self._blind_because = reason
        self._replace(merge_blind(self._workers, time.monotonic()))

    def _replace(self, workers: dict[str, Worker]) -> None:
        for worker in self._workers.values():
            if workers.get(worker.id) is not worker:
                worker.suspect("its record is gone")
                self._retired.add(worker)
        for worker in workers.values():
            if worker.record.state is WorkerState.GONE and worker.healthy:
                worker.suspect(worker.record.reason or "gone")
        self._workers = workers

    def _release_waiting(self) -> None:
        now = time.monotonic()
        for worker in (*self._workers.values(), *self._retired):
            worker.release_waiting(now)

    async def _close_retired(self) -> None:
        asked = self._probes.keys() | self._checks.keys()
        for worker in [worker for worker in self._retired if not worker.in_flight and worker not in asked]:
            self._retired.remove(worker)
            if worker.connection is not None:
                await worker.connection.close()

    def _start_probes(self) -> None:
        for worker in self._workers.values():
            if worker.probeable and worker not in self._probes:
                self._probes[worker] = asyncio.create_task(self._probe(worker))

    async def _probe(self, worker: Worker) -> None:
        try:
            await self._ask_health(worker)
        finally:
            del self._probes[worker]

    async def _ask_health(self, worker: Worker) -> None:
        began, was_healthy = time.monotonic(), worker.healthy
        try:
            if worker.connection is None:
                worker.connection = await connection_to(self._run, worker.record)
            async with await worker.connection.request("GET", "/health", timeout=PROBE_TIMEOUT) as answer:
                trouble = "" if answer.status == 200 else f"/health answers {answer.status}"
        except TRANSPORT_ERRORS as error:
            if is_own_fault(error):
                _log.warning("worker %s cannot be asked for its health: %s", worker.id, describe(error))
                return
            trouble = f"/health fails: {describe(error)}"
        except (SlurminferError, ValueError) as error:  # the record's address is none
            trouble = str(error)
        worker.probed(began, trouble)
        if worker.healthy != was_healthy:
            _log.info("worker %s %s", worker.id, "is healthy" if worker.healthy else f"is unhealthy: {trouble}")
        if worker.healthy and worker.card is None:
            worker.card = await self._ask_card(worker)

    async def _ask_card(self, worker: Worker) -> dict[str, Any] | None:
        """What the worker says of its model in `/v1/models`: empty if that is nothing usable, None if it is silent."""
        assert worker.connection is not None, "it has just been asked for its health"
        try:
            async with await worker.connection.request("GET", "/v1/models", timeout=PROBE_TIMEOUT) as answer:
                text = bytearray()
                while len(text) < _MOST_CARD_BYTES and (chunk := await answer.content.readany()):
                    text += chunk
        except TRANSPORT_ERRORS:
            return None
        return card_of(bytes(text), worker.record.model)


def card_of(text: bytes, model: str) -> dict[str, Any]:
    """The entry of `model` in the JSON that `/v1/models` answers; empty if there is none."""
    try:
        cards = msgspec.json.decode(text, type=_Models).data
    except (msgspec.DecodeError, RecursionError):
        return {}
    return next((card for card in cards if card.get("id") == model), {})


def is_own_fault(error: BaseException | None) -> bool:
    """Whether a connection failed because this process has no descriptors, ports or memory for it."""
    return isinstance(error, OSError) and error.errno in _OWN_FAULTS


def describe(error: BaseException) -> str:
    """An exception in words; many network errors have none of their own."""
    return str(error) or type(error).__name__


def _standing(worker: Worker) -> str:
    return "unreachable" if worker.standing == WorkerState.READY and not worker.choosable else worker.standing


class _Models(msgspec.Struct):
    data: list[dict[str, Any]]
