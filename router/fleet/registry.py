"""The view of all workers: what the run directory says, what probes see. Refreshed every second, never stored."""

import asyncio
import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import aiohttp

from ...core.errors import RunDirectoryError, SlurminferError
from ...core.records import WorkerRecord, WorkerState
from ...core.rundir import RunDirectory
from ..relay.connection import connection_to
from .worker import Worker

LOOK_INTERVAL_S = 1.0
# An engine whose event loop is held up by a long prefill answers late, not never.
PROBE_TIMEOUT = aiohttp.ClientTimeout(total=5.0, sock_connect=2.0)
TRANSPORT_ERRORS = (aiohttp.ClientError, OSError)  # OSError includes TimeoutError

_log = logging.getLogger(__name__)


class Registry:
    """The workers by id. Only `watch` changes what they are; requests count themselves in and out."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._workers: dict[str, Worker] = {}
        self._retired: set[Worker] = set()  # whose connection may still carry requests
        self._probes: dict[Worker, asyncio.Task[None]] = {}
        self._complaints: dict[str, str] = {}
        self._turns = itertools.count(1)

    def all(self) -> list[Worker]:
        """Every worker of the deployment, by id."""
        return list(self._workers.values())

    def choosable(self, model: str | None = None) -> list[Worker]:
        """The workers that may get a request now; of any model if `model` is None."""
        return [w for w in self._workers.values() if w.choosable and model in (None, w.record.model)]

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
                await asyncio.sleep(LOOK_INTERVAL_S)
                await self._read()
                self._start_probes()
        finally:
            for probe in list(self._probes.values()):
                probe.cancel()

    async def close(self) -> None:
        """Close the connections to all workers, when no request is in flight any more."""
        self._retired.update(self._workers.values())
        for worker in self._retired:
            if worker.connection is not None:
                await worker.connection.close()

    async def _read(self) -> None:
        # In a thread: a shared filesystem may stand still for seconds, and the streams must not.
        try:
            records, complaints = await asyncio.to_thread(read_records, self._run)
        except RunDirectoryError as error:
            _log.warning("the view of the workers stays as it was: %s", error)
            return
        for name in complaints.keys() - self._complaints.keys():
            _log.warning("%s", complaints[name])
        self._complaints = complaints
        before = self._workers.values()
        self._workers = merge(self._workers, records, complaints.keys())
        self._retired.update(set(before) - set(self._workers.values()))
        await self._close_retired()

    async def _close_retired(self) -> None:
        for worker in [worker for worker in self._retired if not worker.in_flight and worker not in self._probes]:
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
            trouble = f"/health fails: {describe(error)}"
        except (SlurminferError, ValueError) as error:  # the record's address is none
            trouble = str(error)
        worker.probed(began, trouble)
        if worker.healthy != was_healthy:
            _log.info("worker %s %s", worker.id, "is healthy" if worker.healthy else f"is unhealthy: {trouble}")


def read_records(run: RunDirectory) -> tuple[dict[str, WorkerRecord], dict[str, str]]:
    """All readable records by id, and what is wrong with the files that are not, by the id in their name.

    Raises RunDirectoryError where the folder itself cannot be listed.
    """
    records: dict[str, WorkerRecord] = {}
    complaints: dict[str, str] = {}
    for worker_id in _ids(run):
        try:
            record = run.read_worker(worker_id)
        except (RunDirectoryError, UnicodeDecodeError) as error:
            complaints[worker_id] = f"worker file {worker_id}.json ignored: {error}"
            continue
        if record is not None and record.id != worker_id:
            complaints[worker_id] = f"worker file {worker_id}.json ignored: it says id {record.id!r}"
        elif record is not None:
            records[worker_id] = record
    return records, complaints


def merge(known: dict[str, Worker], records: dict[str, WorkerRecord], unreadable: Collection[str]) -> dict[str, Worker]:
    """The new view: lives that go on keep their Worker, others begin, and an unreadable file changes nothing."""
    workers = {worker_id: known[worker_id] for worker_id in unreadable if worker_id in known}
    for worker_id, record in records.items():
        worker = known.get(worker_id)
        if worker is not None and worker.lives_as(record):
            worker.hear(record)
        else:
            worker = Worker(record)
        workers[worker_id] = worker
    return dict(sorted(workers.items()))


def describe(error: BaseException) -> str:
    """An exception in words; many network errors have none of their own."""
    return str(error) or type(error).__name__


def _ids(run: RunDirectory) -> list[str]:
    try:
        names = os.listdir(run.workers_path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunDirectoryError(f"cannot list {run.workers_path}: {error.strerror}") from error
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith("."))


def _standing(worker: Worker) -> str:
    if worker.is_lost or (worker.record.state is WorkerState.READY and not worker.choosable):
        return "unreachable"
    return worker.record.state.value
