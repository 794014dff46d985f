"""Kept responses on the shared filesystem, a file each, in a folder for each tenant.

Ids tell when a response was made and whose it is, so that no file is read to find out what is too old. All methods
block on the filesystem; they raise RunDirectoryError where it fails.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from ...core import files
from ...core.errors import RunDirectoryError
from ...core.spec.router import RouterSpec
from ...core.trust import PRIVATE_FILE
from ..batches.ids import RESPONSE, is_id, is_of, made_at, mark_of
from .limits import MOST_RECORD_BYTES, Limits
from .record import VERSION, Record

_SUFFIX, _NEW = ".json", ".new-"
_WRITES_PER_LOOK, _BYTES_PER_LOOK = 64, 64 * 2**20  # of a tenant, before its folder is looked at again
_PART_KEPT = 0.9  # of what may be there is left when something has to be removed
_LEFTOVER_S = 600.0  # after which whoever wrote a file beside is surely gone


class _File(NamedTuple):
    id: str
    path: Path
    size: int


class ResponseStore:
    """The kept responses of one deployment.

    Args:
        path: of their folder.
        limits: how much is kept.
        clock: Unix seconds.
    """

    def __init__(self, path: Path, limits: Limits, clock: Callable[[], float] = time.time) -> None:
        self._path, self._limits, self._clock = path, limits, clock
        self._written: dict[str, tuple[int, int]] = {}  # writes and bytes by tenant's folder, since it was looked at
        self._sizes: dict[str, dict[str, int]] = {}  # bytes by folder and id, as they were seen: files never change
        self._lock = threading.Lock()

    def keep(self, record: Record) -> bool:
        """Keep a response. True: it is time to `tidy`. Raises RunDirectoryError, also for one that is too large."""
        data = msgspec.json.encode(record)
        if len(data) > MOST_RECORD_BYTES:
            raise RunDirectoryError(f"response {record.id} has more than {MOST_RECORD_BYTES} bytes")
        path = self._file(record.id)
        if not _write(path, data):
            files.make_directory(path.parent)
            if not _write(path, data):
                raise RunDirectoryError(f"cannot write {path}: its folder was removed")
        return self._is_time_to_look(path.parent.name, len(data))

    def tidy(self, id: str) -> None:
        """Remove the oldest responses of the tenant whose response that is, if there are too many of them."""
        kept = self._seen(self._file(id).parent)
        _remove_oldest(kept, self._limits.of_tenant, self._limits.bytes_of_tenant)

    def get(self, tenant: str, id: str) -> Record | None:
        """A tenant's response; None where it is not kept, or no longer."""
        if not is_of(tenant, RESPONSE, id) or self._is_old(id):
            return None
        path = self._file(id)
        text = files.read_private(path, most_bytes=MOST_RECORD_BYTES)
        if text is None:
            return None
        record = files.parse_versioned(path, text, Record, VERSION, what="kept response")
        return record if record.tenant == tenant else None

    def delete(self, tenant: str, id: str) -> bool:
        """Remove a tenant's response; whether it was there."""
        if self.get(tenant, id) is None:
            return False
        files.remove(self._file(id))
        return True

    def sweep(self) -> None:
        """Remove what is too old, what is too much, and what writers that are gone have left."""
        kept: list[_File] = []
        for folder in self._folders():
            kept += self._seen(folder)
            self._remove_leftovers(folder)
        _remove_oldest(kept, self._limits.in_all, self._limits.bytes_in_all)

    def clear(self) -> None:
        """Remove all of them."""
        files.remove(self._path)

    def _file(self, id: str) -> Path:
        return self._path / mark_of(id) / f"{id}{_SUFFIX}"

    def _is_old(self, id: str) -> bool:
        return self._clock() - made_at(id) >= self._limits.seconds

    def _is_time_to_look(self, folder: str, size: int) -> bool:
        with self._lock:
            writes, written = self._written.get(folder, (_WRITES_PER_LOOK, 0))  # another relay may have filled it
            is_time = writes + 1 >= _WRITES_PER_LOOK or written + size >= _BYTES_PER_LOOK
            self._written[folder] = (0, 0) if is_time else (writes + 1, written + size)
            return is_time

    def _seen(self, folder: Path) -> list[_File]:
        """The responses in a folder, without those that are too old, which are removed."""
        kept = []
        for file in _files(folder, self._sizes.get(folder.name, {})):
            if self._is_old(file.id):
                files.remove(file.path)
            else:
                kept.append(file)
        self._sizes[folder.name] = {file.id: file.size for file in kept}
        return kept

    def _remove_leftovers(self, folder: Path) -> None:
        for name in _names(folder):
            with suppress(OSError):
                if name.startswith(_NEW) and self._clock() - os.stat(folder / name).st_mtime > _LEFTOVER_S:
                    os.unlink(folder / name)

    def _folders(self) -> list[Path]:
        return [self._path / name for name in _names(self._path)]


def response_store(path: str | Path, spec: RouterSpec) -> ResponseStore | None:
    """The store of a deployment; None where no responses are kept, or there is no folder for them."""
    if not path or not spec.keep_responses:
        return None
    return ResponseStore(Path(path), Limits(seconds=spec.keep_responses))


def _files(folder: Path, sizes: Mapping[str, int]) -> Iterator[_File]:
    """The responses in a folder. `sizes`: those that are known already."""
    for name in _names(folder):
        id = name.removesuffix(_SUFFIX)
        if is_id(RESPONSE, id):
            with suppress(OSError):
                size = sizes.get(id)
                yield _File(id, folder / name, os.stat(folder / name).st_size if size is None else size)


def _remove_oldest(kept: list[_File], most: int, most_bytes: int) -> None:
    """Remove the oldest where there are too many, or too many bytes, until there is some room."""
    count, size = len(kept), sum(file.size for file in kept)
    if count <= most and size <= most_bytes:
        return
    for file in sorted(kept, key=lambda file: file.id):
        if count <= most * _PART_KEPT and size <= most_bytes * _PART_KEPT:
            return
        files.remove(file.path)
        count, size = count - 1, size - file.size


def _write(path: Path, data: bytes) -> bool:
    """Write a file beside and rename it; False where there is no folder for it.

    What is lost when the node fails is lost: nobody waits for the disk.
    """
    beside = path.with_name(f"{_NEW}{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(beside, flags, PRIVATE_FILE), "wb") as file:
            file.write(data)
        os.rename(beside, path)
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        with suppress(OSError):
            os.unlink(beside)
        raise RunDirectoryError(f"cannot write {path}: {error.strerror}") from error


def _names(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from error
