"""Tenants' files: `files/ID/record.json` and `files/ID/content` in the run directory.

A file is written in a folder beside, which is renamed when it is whole: so nobody sees half of one. All methods block
on the filesystem; they raise RunDirectoryError where it fails.
"""

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ...core import files
from ...core.errors import DamagedFileError, RunDirectoryError
from ...core.rundir import RunDirectory
from ...core.trust import PRIVATE_FILE, open_trusted
from .cache import Cache
from .errors import NotAllowedError, NotThereError
from .ids import FILE, is_id, is_of
from .limits import USUAL, Allowed
from .records import VERSION, FileRecord

_UPLOAD, _REMOVED = ".upload-", ".removed-"
LEFTOVER_S = 24 * 3600.0  # after which whoever wrote a file beside is surely gone
_RECORD, _CONTENT = "record.json", "content"

_log = logging.getLogger(__name__)


class Draft:
    """A file that is being written. `discard` is harmless after `keep`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with _explained(folder, "make"):
            files.make_directory(folder.parent)
            folder.mkdir(mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file: BinaryIO | None = os.fdopen(os.open(folder / _CONTENT, flags, PRIVATE_FILE), "wb")
        self.size = 0  # bytes

    def write(self, data: bytes) -> None:
        """Append some of the content."""
        assert self._file is not None
        with _explained(self._folder, "write"):
            self._file.write(data)
        self.size += len(data)

    def keep(self, record: FileRecord) -> None:
        """Let everybody see the file; one of this id that is there already stays instead."""
        assert self._file is not None
        with _explained(self._folder, "write"):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
            files.write_atomic(self._folder / _RECORD, files.encode_json(record))
            place = self._folder.with_name(record.id)
            if place.exists():
                files.remove(self._folder)
            else:
                self._folder.rename(place)

    def discard(self) -> None:
        """Forget what was written."""
        with suppress(OSError, RunDirectoryError):
            if self._file is not None:
                file, self._file = self._file, None
                file.close()
            if self._folder.exists():
                files.remove(self._folder)


class FileStore:
    """The files of one deployment.

    Args:
        run: of the deployment.
        clock: Unix seconds.
        allowed: how much one tenant may have; for uploads, not for what batches make.
        held: bytes that a tenant's batches have besides, of inputs that it has deleted.
    """

    def __init__(
        self,
        run: RunDirectory,
        clock: Callable[[], float] = time.time,
        allowed: Allowed = USUAL,
        held: Callable[[str], int] = lambda tenant: 0,
    ) -> None:
        self._path, self._clock, self._allowed, self._held = run.files_path, clock, allowed, held
        self._keeping = threading.Lock()
        self._known: Cache[FileRecord] = Cache()  # they never change
        self._damaged: set[str] = set()  # that the log has told of

    def draft(self) -> Draft:
        """Begin a new file."""
        return Draft(self._path / f"{_UPLOAD}{secrets.token_hex(8)}")

    def room(self, tenant: str) -> int:
        """Bytes that a further file of a tenant may have. Raises NotAllowedError where it may have none."""
        sizes = [record.bytes for record in map(self._record_there, self._ids(tenant)) if record is not None]
        if len(sizes) >= self._allowed.files:
            message = f"there are {len(sizes)} files of this key, and {self._allowed.files} is the most: delete some"
            raise NotAllowedError(message, "file", "file_limit_exceeded")
        return max(0, self._allowed.bytes - sum(sizes) - self._held(tenant))

    def no_room(self, room: int) -> NotAllowedError:
        """The error for a file that is larger than the room there is."""
        most = f"{self._allowed.bytes / 2**30:g} GiB"
        message = f"the files of this key may have {most} in all, of which {room} bytes are left: delete some"
        return NotAllowedError(message, "file", "storage_limit_exceeded")

    def keep(self, draft: Draft, record: FileRecord) -> None:
        """Let the tenant see a file that it has uploaded. Raises NotAllowedError where there is no room for it."""
        with self._keeping:  # several uploads may end at once
            if record.bytes > (room := self.room(record.tenant)):
                raise self.no_room(room)
            draft.keep(record)

    def get(self, tenant: str, id: str) -> FileRecord:
        """A tenant's file. Raises NotThereError, also for one that has expired."""
        record = self._read(id) if is_of(tenant, FILE, id) else None
        if record is None or record.tenant != tenant or self._is_over(record):
            raise NotThereError("File object", id)
        return record

    def content_path(self, id: str) -> Path:
        """Where the bytes of a file are, whose record was got."""
        return self._path / id / _CONTENT

    def open(self, record: FileRecord) -> BinaryIO:
        """The bytes of a file. Raises NotThereError where it was removed meanwhile."""
        with _explained(self._path / record.id, "read"):
            try:
                return open_trusted(self.content_path(record.id))
            except FileNotFoundError:
                raise NotThereError("File object", record.id) from None

    def listed(
        self, tenant: str, *, limit: int, after: str | None, newest_first: bool, purpose: str | None
    ) -> tuple[list[FileRecord], bool]:
        """Up to `limit` files of a tenant that come after the one with id `after`, and whether more follow."""
        found = []
        for id in page(sorted(self._ids(tenant), reverse=newest_first), after, newest_first):
            record = self._usable(id)
            if record is None or record.tenant != tenant or self._is_over(record):
                continue
            if purpose is None or record.purpose == purpose:
                found.append(record)
            if len(found) > limit:
                return found[:limit], True
        return found, False

    def delete(self, tenant: str, id: str) -> None:
        """Remove a tenant's file. Batches that it was the input of have a link of their own. Raises NotThereError."""
        self._remove(self.get(tenant, id).id)

    def sweep(self) -> None:
        """Remove what has expired, and what writers that are gone have left."""
        for name in _names(self._path):
            if is_id(FILE, name):
                record = self._usable(name)
                if record is not None and self._is_over(record):
                    self._remove(name)
            elif name.startswith((_UPLOAD, _REMOVED)) and self._is_leftover(name):
                files.remove(self._path / name)

    def _is_leftover(self, name: str) -> bool:
        if name.startswith(_REMOVED):
            return True
        with suppress(OSError):
            newest = max(os.stat(path).st_mtime for path in (self._path / name, self._path / name / _CONTENT))
            return self._clock() - newest > LEFTOVER_S
        return False

    def _remove(self, id: str) -> None:
        self._known.forget(id)
        removed = self._path / f"{_REMOVED}{id}"
        with _explained(self._path / id, "remove"):
            try:
                os.rename(self._path / id, removed)  # at once for everybody, however long removing takes
            except FileNotFoundError:
                raise NotThereError("File object", id) from None
        files.remove(removed)

    def _ids(self, tenant: str) -> Iterator[str]:
        return (name for name in _names(self._path) if is_of(tenant, FILE, name))

    def _is_over(self, record: FileRecord) -> bool:
        return record.expires_at is not None and self._clock() >= record.expires_at

    def _record_there(self, id: str) -> FileRecord | None:
        """The record of a file that was just listed."""
        return self._known.get(id) or self._usable(id)

    def _usable(self, id: str) -> FileRecord | None:
        """The record of one file of many, whose damage must not hide the others."""
        try:
            return self._read(id)
        except DamagedFileError as error:
            if id not in self._damaged:
                self._damaged.add(id)
                _log.warning("a file of OpenAI's API cannot be used: %s", error)
            return None

    def _read(self, id: str) -> FileRecord | None:
        known = self._known.get(id)
        if known is not None and (self._path / id).is_dir():
            return known
        path = self._path / id / _RECORD
        text = files.read_private(path)
        if text is None:
            return None
        record = files.parse_versioned(path, text, FileRecord, VERSION, what="record of a file")
        if record.id != id:
            raise DamagedFileError(f"{path} is the record of {record.id[:100]!r}")
        self._known.put(id, record)
        return record


def page(ids: list[str], after: str | None, newest_first: bool) -> list[str]:
    """Those of sorted `ids` that come after the cursor, which need not be one of them."""
    if after is None:
        return ids
    return [id for id in ids if (id < after if newest_first else id > after)]


def _names(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from error


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(f"cannot {what} {path}: {error.strerror}") from error
