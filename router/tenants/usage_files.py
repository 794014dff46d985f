"""The files of what tenants have used: `usage.json`, and one in `usage.d` for each router that counts.

Two routers may serve a deployment at the same time. So each writes a file of its own, and what has been used is the sum
of all. When a router has ended, its file is added to `usage.json` and removed. `usage.json` says which files are in it.
So nothing counts twice if that is interrupted between the two, or if somebody reads meanwhile.
"""

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ...core import files
from ...core.errors import RunDirectoryError
from ...core.locks import Lock, try_lock
from ...core.trust import PRIVATE_FILE, PRIVATE_FOLDER
from .tenant import Usage

MOST_DAYS = 400  # for each tenant; older ones count in its total only
# A router writes its file every hour at least. One that has not done so for a day was killed.
BEAT_S = 3600.0
_DEAD_S = 86_400.0
_MOST_BYTES = 256 << 20
_MOST_MERGED = 1000  # names that are remembered
_VERSION = 1
_FIELDS = Usage.__struct_fields__

_log = logging.getLogger(__name__)


class TenantUsage(msgspec.Struct, kw_only=True):
    """What one tenant has used."""

    total: Usage = msgspec.field(default_factory=Usage)
    days: dict[str, Usage] = msgspec.field(default_factory=dict)  # by UTC day, such as 2026-01-31; oldest first


Table = dict[str, TenantUsage]  # by tenant


class _UsageFile(msgspec.Struct, kw_only=True):
    version: int = _VERSION
    tenants: Table = msgspec.field(default_factory=dict)
    ended: bool = False  # of a router's file: it is complete
    merged: list[str] = msgspec.field(
        default_factory=list
    )  # of usage.json: files of routers that are in it, latest last


def read_usage(path: Path) -> Table:
    """By tenant what it has used, from `usage.json` at `path` and the files of routers beside it.

    Raises RunDirectoryError for a damaged one.
    """
    parts = {file.name: _read(file) for file in _parts(path)}  # before usage.json: see the top of this file
    whole = _read(path)
    return summed([whole.tenants, *(part.tenants for name, part in parts.items() if name not in whole.merged)])


def day_of(now: float) -> str:
    """The UTC day of a Unix time, such as 2026-01-31."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


def tokens_of(usage: Usage) -> int:
    """What counts against the limit of tokens/day."""
    return usage.prompt_tokens + usage.generated_tokens


def tokens_on(day: str, table: Mapping[str, TenantUsage]) -> dict[str, int]:
    """By tenant the prompt and generated tokens of a day, for tenants that have used something."""
    return {name: tokens_of(one.days[day]) for name, one in table.items() if day in one.days}


def add(table: Table, name: str, day: str, new: Usage) -> None:
    """Count `new` for a tenant on a day."""
    tenant = table.setdefault(name, TenantUsage())
    _increase(tenant.total, new)
    _increase(tenant.days.setdefault(day, Usage()), new)
    _bound(tenant)


def summed(tables: Iterable[Mapping[str, TenantUsage]]) -> Table:
    """The sum of several tables, which stay as they are."""
    found: Table = {}
    for table in tables:
        for name, one in table.items():
            tenant = found.setdefault(name, TenantUsage())
            _increase(tenant.total, one.total)
            for day, used in one.days.items():
                _increase(tenant.days.setdefault(day, Usage()), used)
    for tenant in found.values():
        tenant.days = dict(sorted(tenant.days.items()))
        _bound(tenant)
    return found


class UsageFiles:
    """The files as one router sees them. All methods block on the filesystem.

    Args:
        path: of `usage.json`.
        owner: names this router's file; no other router, earlier or later, may have the same.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self._path, self._owner = path, owner
        self._complaint = ""
        self._known: dict[Path, tuple[tuple[int, ...], _UsageFile]] = {}  # by file: its version, and what it says

    @property
    def own(self) -> Path:
        """This router's file."""
        return _folder(self._path) / f"{self._owner}.json"

    def write(self, tenants: Table, *, ended: bool = False) -> None:
        """Replace this router's file. Raises RunDirectoryError."""
        try:
            self.own.parent.mkdir(PRIVATE_FOLDER, exist_ok=True)  # and nothing above it: the deployment may be gone
        except OSError as error:
            raise RunDirectoryError(f"cannot make {self.own.parent}: {error.strerror}") from error
        files.write_atomic(self.own, msgspec.json.encode(_UsageFile(tenants=tenants, ended=ended)).decode() + "\n")

    def elsewhere(self) -> Table:
        """What is in all files but this router's. Files that have not changed are not read again.

        Raises RunDirectoryError where `usage.json` is damaged; a damaged file of another router is left out.
        """
        parts = {file.name: part for file in self._others() if (part := self._look(file)) is not None}
        whole = self._read_again(self._path)
        return summed([whole.tenants, *(part.tenants for name, part in parts.items() if name not in whole.merged)])

    def is_merged(self) -> bool:
        """Whether somebody has taken this router for dead, and has added its file to `usage.json`."""
        return self.own.name in self._read_again(self._path).merged

    def merge_ended(self, now: float) -> None:
        """Add the files of routers that have ended to `usage.json`. Raises RunDirectoryError.

        Args:
            now: Unix seconds.
        """
        ended = [file for file in _parts(self._path) if self._has_ended(file, now)]
        if ended:
            with self._locked() as is_locked:
                if is_locked:  # else another router does it
                    self._merge(ended)

    def put_aside(self, error: RunDirectoryError) -> None:
        """Rename a damaged `usage.json`."""
        aside = damaged_name(self._path)
        _log.error("%s; usage is counted anew, the file is kept as %s", error, aside)
        try:
            self._path.replace(aside)
        except OSError as problem:
            _log.error("cannot rename %s: %s", self._path, problem.strerror)

    def _others(self) -> list[Path]:
        found = [file for file in _parts(self._path) if file != self.own]
        self._known = {path: known for path, known in self._known.items() if path in {self._path, *found}}
        return found

    def _look(self, file: Path) -> _UsageFile | None:
        try:
            return self._read_again(file)
        except RunDirectoryError as error:
            if str(error) != self._complaint:
                _log.error("what this file has is not counted: %s", error)
            self._complaint = str(error)
            return None

    def _read_again(self, file: Path) -> _UsageFile:
        """The file, from memory where it has not changed."""
        version = files.version_of(file)
        if version is None:
            return _UsageFile()
        known = self._known.get(file)
        if known is None or known[0] != version:
            known = self._known[file] = version, _read(file)
        return known[1]

    def _has_ended(self, file: Path, now: float) -> bool:
        part = self._look(file)
        if part is None:
            return False
        try:
            return part.ended or now - file.stat().st_mtime > _DEAD_S
        except OSError:  # it was merged just now
            return False

    def _merge(self, ended: list[Path]) -> None:
        whole = _read(self._path)
        parts = {file.name: _read(file) for file in ended}
        new = {name: part for name, part in parts.items() if name not in whole.merged}
        whole.tenants = summed([whole.tenants, *(part.tenants for part in new.values())])
        whole.merged = [*whole.merged, *new][-_MOST_MERGED:]
        files.write_atomic(self._path, msgspec.json.encode(whole).decode() + "\n")
        for file in ended:
            files.remove(file)

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Whether this router may write `usage.json`; on a filesystem without locks it always may."""
        path = _folder(self._path) / ".lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
        except OSError as error:
            raise RunDirectoryError(f"cannot lock {path}: {error.strerror}") from error
        try:
            yield try_lock(lock) is not Lock.BUSY
        finally:
            os.close(lock)


def new_owner(job: str) -> str:
    """A name that no other router has, for the file of a router in that job."""
    return f"{job}.{time.time_ns():x}.{os.urandom(4).hex()}"


def damaged_name(path: Path) -> Path:
    """Where a damaged `usage.json` is kept."""
    return path.with_name(f"{path.name}.damaged")


def _folder(path: Path) -> Path:
    return path.with_suffix(".d")


def _parts(path: Path) -> list[Path]:
    """The files of routers."""
    try:
        names = os.listdir(_folder(path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunDirectoryError(f"cannot read {_folder(path)}: {error.strerror}") from error
    return [_folder(path) / name for name in sorted(names) if name.endswith(".json") and not name.startswith(".")]


def _read(path: Path) -> _UsageFile:
    text = files.read_private(path, most_bytes=_MOST_BYTES)
    if text is None:
        return _UsageFile()
    return files.parse_versioned(path, text, _UsageFile, _VERSION, what="table of usage")


def _increase(usage: Usage, new: Usage) -> None:
    for field in _FIELDS:
        setattr(usage, field, getattr(usage, field) + getattr(new, field))


def _bound(tenant: TenantUsage) -> None:
    while len(tenant.days) > MOST_DAYS:
        del tenant.days[min(tenant.days)]
