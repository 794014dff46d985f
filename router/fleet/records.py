"""What the run directory says of the workers, and how the router's view follows it.

Whatever lies in `workers/` is the trouble of one worker at most. The view is changed only by what was read: a folder
that cannot be read for a while changes nothing.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from ...core.errors import RunDirectoryError
from ...core.records import WorkerRecord
from ...core.rundir import RunDirectory
from ...core.workers.records import WorkerRecords
from .worker import Worker

MOST_RECORDS = 20_000  # twice as many as the workers that a pool may have
# A listing on NFS may lack a file that is just being replaced; a file that stays away was removed.
VANISHED_S = 3.0
# A folder that is away or empty is a fault of the filesystem. After this time only workers that answer are kept.
FOLDER_AWAY_S = 60.0

_WORKER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}-[0-9]{1,18}(?:\.[0-9]{1,4})?")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Found:
    """One look into `workers/`."""

    records: dict[str, WorkerRecord] = field(default_factory=dict)  # by id
    complaints: dict[str, str] = field(default_factory=dict)  # by file: what is wrong with those that cannot be used


def read_records(run: RunDirectory, records: WorkerRecords) -> Found:
    """All usable records. Raises RunDirectoryError where the folder itself cannot be listed."""
    found = Found()
    for worker_id, record in records.look_at(_ids(run, found.complaints)).items():
        if isinstance(record, RunDirectoryError):
            found.complaints[worker_id] = f"worker file {worker_id}.json ignored: {record}"
        else:
            found.records[worker_id] = record
    return found


def merge(known: dict[str, Worker], found: Found, now: float) -> dict[str, Worker]:
    """The new view: lives that go on keep their Worker, others begin, and an unreadable file changes nothing.

    A worker whose record has been missing for `VANISHED_S` is left out. `now` is monotonic.
    """
    workers = {}
    for worker_id, worker in known.items():
        if worker_id in found.complaints or (worker_id not in found.records and _missing_s(worker, now) < VANISHED_S):
            workers[worker_id] = worker
    for worker_id, record in found.records.items():
        workers[worker_id] = _go_on(known.get(worker_id), record)
    return dict(sorted(workers.items()))


def merge_blind(known: dict[str, Worker], now: float) -> dict[str, Worker]:
    """The view where nothing could be read: as it was, after `FOLDER_AWAY_S` without the workers that are silent."""
    return {
        worker_id: worker
        for worker_id, worker in known.items()
        if _missing_s(worker, now) < FOLDER_AWAY_S or worker.healthy
    }


def _go_on(worker: Worker | None, record: WorkerRecord) -> Worker:
    """The worker that `record` tells of: the same, if its life goes on or the record is one of an earlier life."""
    if worker is None:
        return Worker(record)
    if worker.lives_as(record):
        worker.hear(record)
    elif not worker.follows(record):
        return Worker(record)
    worker.missing_since = None
    return worker


def _missing_s(worker: Worker, now: float) -> float:
    if worker.missing_since is None:
        worker.missing_since = now
    return now - worker.missing_since


def _ids(run: RunDirectory, complaints: dict[str, str]) -> Sequence[str]:
    """The ids that files have in their names. Adds what is wrong with other names to `complaints`."""
    try:
        with os.scandir(run.workers_path) as entries:
            names = [entry.name for entry in islice(entries, 5 * MOST_RECORDS)]
    except OSError as error:
        raise RunDirectoryError(f"cannot list {run.workers_path}: {error.strerror}") from error
    stems = [name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")]
    ids = sorted(stem for stem in stems if _WORKER_ID.fullmatch(stem))
    for stem in set(stems).difference(ids):
        complaints[stem] = f"worker file {stem[:100]!r}.json ignored: expected POOL-SERIAL(.NUMBER).json"
    if len(ids) > MOST_RECORDS:
        complaints[""] = f"{run.workers_path} has {len(ids)} records; those after {ids[MOST_RECORDS - 1]} are ignored"
    return ids[:MOST_RECORDS]
