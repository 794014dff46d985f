"""Batches of OpenAI's API: `openai-batches/ID/` in the run directory.

    request.json   what was asked for; written by the router, once
    input.jsonl    a link to the input file's content, so that the file may be deleted meanwhile
    cancel.json    the tenant wants no more of it; written by the router, once
    state.json     how far it is; written by the program that works on it
    work/          that program's own

All methods block on the filesystem; they raise RunDirectoryError where it fails.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...core import files
from ...core.errors import DamagedFileError, RunDirectoryError
from ...core.rundir import RunDirectory
from .cache import Cache
from .errors import NotAllowedError, NotThereError
from .files import LEFTOVER_S, FileStore, page
from .ids import BATCH, is_id, is_of, new_id
from .limits import MOST_BATCHES_KEPT, USUAL, WINDOW_S, Allowed
from .progress import advanced, newest
from .records import VERSION, BatchRecord, BatchState, CancelRecord, Status

INPUT, WORK = "input.jsonl", "work"
_REQUEST, _STATE, _CANCEL = "request.json", "state.json", "cancel.json"
_NEW = ".new-"

_log = logging.getLogger(__name__)


class BatchStore:
    """The batches of one deployment.

    Args:
        run: of the deployment.
        clock: Unix seconds.
        allowed: how much one tenant may have.
    """

    def __init__(self, run: RunDirectory, clock: Callable[[], float] = time.time, allowed: Allowed = USUAL) -> None:
        self._path, self._clock, self._allowed = run.openai_batches_path, clock, allowed
        self._creating = threading.Lock()
        self.files = FileStore(run, clock, allowed, self._held)
        self._requests: Cache[BatchRecord] = Cache()  # they never change
        self._states: Cache[BatchState] = Cache()  # as they were seen last
        self._damaged: set[str] = set()  # that the log has told of

    # For the router.

    def create(
        self, tenant: str, endpoint: str, input_file_id: str, metadata: dict[str, str] | None, output_kept_s: int | None
    ) -> BatchRecord:
        """Begin a batch. Raises NotThereError, NotAllowedError for a file of another purpose or too many batches."""
        source = self.files.get(tenant, input_file_id)
        if source.purpose != "batch":
            message = f"the file's purpose is '{source.purpose}': expected 'batch'"
            raise NotAllowedError(message, "input_file_id")
        now = self._clock()
        record = BatchRecord(
            id=new_id(BATCH, tenant, now),
            tenant=tenant,
            endpoint=endpoint,
            input_file_id=source.id,
            created_at=int(now),
            expires_at=int(now) + WINDOW_S,
            metadata=metadata,
            output_kept_s=output_kept_s,
        )
        with self._creating:
            self._make_room(tenant)
            self._make(record)
        return record

    def get(self, tenant: str, id: str) -> BatchRecord:
        """A tenant's batch. Raises NotThereError."""
        record = self.request(id) if is_of(tenant, BATCH, id) else None
        if record is None or record.tenant != tenant:
            raise NotThereError("batch", id)
        return record

    def listed(self, tenant: str, limit: int, after: str | None) -> tuple[list[BatchRecord], bool]:
        """Up to `limit` batches of a tenant, the newest first, that are older than `after`; whether more follow."""
        found = []
        for id in page(self._ids_of(tenant)[::-1], after, newest_first=True):
            record = self._usable(id)
            if record is not None and record.tenant == tenant:
                found.append(record)
            if len(found) > limit:
                return found[:limit], True
        return found, False

    def complain(self, id: str, error: DamagedFileError) -> None:
        """Tell the log once that a batch cannot be used."""
        if id not in self._damaged:
            self._damaged.add(id)
            _log.warning("a batch cannot be used: %s", error)

    def cancel(self, record: BatchRecord) -> None:
        """Ask for a batch's end. Raises NotAllowedError where it has ended already."""
        state = self.state(record.id)
        if state.has_ended:
            raise NotAllowedError(f"Cannot cancel a batch with status '{state.status}'.")
        files.claim(self.folder(record.id) / _CANCEL, files.encode_json(CancelRecord(cancelling_at=int(self._clock()))))

    # For both.

    def request(self, id: str) -> BatchRecord | None:
        """What was asked for; None where there is no such batch."""
        known = self._requests.get(id)
        if known is None:
            path = self.folder(id) / _REQUEST
            text = files.read_private(path)
            if text is None:
                return None
            known = files.parse_versioned(path, text, BatchRecord, VERSION, what="request for a batch")
            if known.id != id:
                raise DamagedFileError(f"{path} is the request for {known.id[:100]!r}")
            self._requests.put(id, known)
        return known

    def state(self, id: str) -> BatchState:
        """How far a batch is: the latest that was seen of it, should the filesystem show an older one."""
        seen = self._states.get(id)
        if seen is not None and seen.has_ended:
            return seen
        path = self.folder(id) / _STATE
        text = files.read_private(path)
        if text is None:
            return seen or BatchState()
        found = newest(seen, files.parse_versioned(path, text, BatchState, VERSION, what="state of a batch"))
        self._states.put(id, found)
        return found

    def is_cancelled(self, id: str) -> bool:
        """Whether a batch's end was asked for."""
        return self.cancelling_at(id) is not None

    def cancelling_at(self, id: str) -> int | None:
        """When a batch's end was asked for; None if it was not."""
        path = self.folder(id) / _CANCEL
        text = files.read_private(path)
        if text is None:
            return None
        return files.parse_versioned(path, text, CancelRecord, VERSION, what="order to cancel").cancelling_at

    def folder(self, id: str) -> Path:
        """The folder of a batch. Raises ValueError for what is no id: it could lead out of the folder."""
        if not is_id(BATCH, id):
            raise ValueError(f"{id!r} is no id of a batch")
        return self._path / id

    # For the program that works on them.

    def ids(self) -> list[str]:
        """All batches, the oldest first."""
        return sorted(name for name in self._names() if is_id(BATCH, name))

    def change(self, id: str, change: Callable[[BatchState], BatchState]) -> BatchState:
        """Change a batch's state, as far as it may change so; the state then. For one process at a time."""
        before = self.state(id)
        after = advanced(before, change(before))
        if after is not before:
            files.write_atomic(self.folder(id) / _STATE, files.encode_json(after))
            self._states.put(id, after)
        return after

    def clear(self, id: str) -> None:
        """Remove what a batch that has ended needs no more."""
        for name in (WORK, INPUT):
            files.remove(self.folder(id) / name)

    def sweep(self) -> None:
        """Remove what a router has left that was killed while it began a batch."""
        for name in self._names():
            with suppress(OSError):
                if name.startswith(_NEW) and self._clock() - os.stat(self._path / name).st_mtime > LEFTOVER_S:
                    files.remove(self._path / name)

    def _make_room(self, tenant: str) -> None:
        """Raise NotAllowedError where a tenant has as many batches under way as it may; forget old ones."""
        ids = self._ids_of(tenant)
        if len(ids) < min(self._allowed.batches, MOST_BATCHES_KEPT):
            return
        ended = [id for id in ids if self._has_ended(id)]
        if (open := len(ids) - len(ended)) >= self._allowed.batches:
            most = f"{self._allowed.batches} is the most"
            message = f"{open} batches of this key are under way, and {most}: wait until one has ended, or cancel one"
            raise NotAllowedError(message, code="batch_limit_exceeded", status=429)
        for id in ended[: max(0, len(ids) + 1 - MOST_BATCHES_KEPT)]:
            for cache in (self._requests, self._states):
                cache.forget(id)
            files.remove(self.folder(id))

    def _usable(self, id: str) -> BatchRecord | None:
        """The record of one batch of many, whose damage must not hide the others."""
        try:
            return self.request(id)
        except DamagedFileError as error:
            self.complain(id, error)
            return None

    def _has_ended(self, id: str) -> bool:
        """Whether a batch is at its end, or will never come to one because its files are damaged."""
        try:
            return self.state(id).has_ended
        except DamagedFileError:
            return True

    def _held(self, tenant: str) -> int:
        """Bytes of inputs that a tenant has deleted, and that its batches still have."""
        held = 0
        for id in self._ids_of(tenant):
            seen = self._states.get(id)
            if seen is None or not seen.has_ended:
                with suppress(OSError):
                    status = os.stat(self.folder(id) / INPUT)
                    held += status.st_size if status.st_nlink == 1 else 0
        return held

    def _ids_of(self, tenant: str) -> list[str]:
        """All batches of a tenant, the oldest first."""
        return sorted(name for name in self._names() if is_of(tenant, BATCH, name))

    def _make(self, record: BatchRecord) -> None:
        folder = self._path / f"{_NEW}{record.id}"
        try:
            files.make_directory(folder)
            os.link(self.files.content_path(record.input_file_id), folder / INPUT)
            files.write_atomic(folder / _REQUEST, files.encode_json(record))
            folder.rename(self.folder(record.id))
        except FileNotFoundError:
            files.remove(folder)
            raise NotThereError("File object", record.input_file_id) from None
        except OSError as error:
            files.remove(folder)
            raise RunDirectoryError(f"cannot make {self.folder(record.id)}: {error.strerror}") from error
        except RunDirectoryError:
            files.remove(folder)
            raise

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunDirectoryError(f"cannot read {self._path}: {error.strerror}") from error


def shown_status(state: BatchState, cancelling_at: int | None) -> Status:
    """What a client is told: a batch that is to be cancelled is cancelling until it has ended."""
    return state.status if cancelling_at is None or state.has_ended else Status.CANCELLING
