"""What tenants have used: `usage.json` of the run directory, which the supervisor writes.

Relays report what they have counted since they started; `UsageLedger` adds what is new of each report to what the file
had. The file is written a few seconds after a change and when the router ends. A router that is killed loses what came
after the last writing: some seconds.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from ...core import files
from ...core.errors import RunDirectoryError
from ...core.threads import in_thread
from .tenant import Usage

PERIOD_S = 3.0
MOST_DAYS = 400  # for each tenant; older ones count in its total only
_SHARE_OF_TIME = 0.05  # that writing may take: a large file on a slow filesystem is written less often
_MOST_BYTES = 256 << 20
_VERSION = 1
_FIELDS = Usage.__struct_fields__

_log = logging.getLogger(__name__)


class TenantUsage(msgspec.Struct, kw_only=True):
    """What one tenant has used."""

    total: Usage = msgspec.field(default_factory=Usage)
    days: dict[str, Usage] = msgspec.field(default_factory=dict)  # by UTC day, such as 2026-01-31; oldest first


class _UsageFile(msgspec.Struct, kw_only=True):
    version: int = _VERSION
    tenants: dict[str, TenantUsage] = msgspec.field(default_factory=dict)


def read_usage(path: Path) -> dict[str, TenantUsage]:
    """By tenant what it has used; empty where there is no file. Raises RunDirectoryError for a damaged one."""
    text = files.read_private(path, most_bytes=_MOST_BYTES)
    if text is None:
        return {}
    try:
        found = msgspec.json.decode(text, type=_UsageFile)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{path} is not a table of usage: {error}") from error
    if found.version != _VERSION:
        raise RunDirectoryError(f"{path} has layout {found.version}: expected {_VERSION}")
    return found.tenants


def day_of(now: float) -> str:
    """The UTC day of a Unix time, such as 2026-01-31."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


class UsageLedger:
    """The usage of all tenants; belongs to the supervisor.

    Args:
        path: of the file. One that is damaged is put aside, and counting begins anew.
        clock: Unix seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._reported: dict[Hashable, dict[str, Usage]] = {}  # by relay's life
        self._changed, self._complaint = False, ""
        self._writing = threading.Lock()  # the last writing may begin while another one is still under way
        self.tenants = self._read()

    def merge(self, life: Hashable, usage: Mapping[str, Usage]) -> None:
        """Take a relay's report: what its tenants have used since it started.

        Args:
            life: tells this life of a relay from all others: one that is started anew counts from 0.
            usage: by tenant, cumulative.
        """
        before, day = self._reported.setdefault(life, {}), day_of(self._clock())
        for name, told in usage.items():
            known = before.get(name) or Usage()
            new = {field: max(0, getattr(told, field) - getattr(known, field)) for field in _FIELDS}
            if any(new.values()):
                before[name] = msgspec.structs.replace(told)
                self._add(name, day, new)

    def forget(self, life: Hashable) -> None:
        """Note that a relay has ended, and that its last report was merged."""
        self._reported.pop(life, None)

    def tokens_today(self) -> dict[str, int]:
        """By tenant the prompt and generated tokens of this UTC day."""
        day = day_of(self._clock())
        return {name: tokens_of(one.days[day]) for name, one in self.tenants.items() if day in one.days}

    async def keep(self, period_s: float = PERIOD_S) -> None:
        """Write the file every `period_s` if something has changed, until cancelled. Call `write` at the end."""
        pause_s = period_s
        while True:
            await asyncio.sleep(pause_s)
            if self._changed:
                text, self._changed = self._text(), False
                began = time.monotonic()
                await in_thread(partial(self._write, text))
                pause_s = max(period_s, (time.monotonic() - began) / _SHARE_OF_TIME)

    def write(self) -> None:
        """Write the file now if something has changed since it was written. For the end; blocks."""
        if self._changed:
            self._changed = False
            self._write(self._text())

    def _add(self, name: str, day: str, new: Mapping[str, int]) -> None:
        tenant = self.tenants.setdefault(name, TenantUsage())
        for usage in (tenant.total, tenant.days.setdefault(day, Usage())):
            for field, amount in new.items():
                setattr(usage, field, getattr(usage, field) + amount)
        while len(tenant.days) > MOST_DAYS:
            del tenant.days[min(tenant.days)]
        self._changed = True

    def _text(self) -> str:
        return msgspec.json.encode(_UsageFile(tenants=self.tenants)).decode() + "\n"

    def _write(self, text: str) -> None:
        """Write the file. Where that fails, such as on a full disk, nothing is lost: it is tried again."""
        try:
            with self._writing:
                files.write_atomic(self._path, text)
        except RunDirectoryError as error:
            self._changed = True
            if str(error) != self._complaint:
                _log.error("usage of tenants cannot be saved: %s", error)
            self._complaint = str(error)
        else:
            self._complaint = ""

    def _read(self) -> dict[str, TenantUsage]:
        try:
            return read_usage(self._path)
        except RunDirectoryError as error:
            aside = self._path.with_name(f"{self._path.name}.damaged")
            _log.error("%s; usage is counted anew, the file is kept as %s", error, aside)
            try:
                self._path.replace(aside)
            except OSError as problem:
                _log.error("cannot rename %s: %s", self._path, problem.strerror)
            return {}


def tokens_of(usage: Usage) -> int:
    """What counts against the limit of tokens/day."""
    return usage.prompt_tokens + usage.generated_tokens


class TokensToday:
    """What relays add to the tokens on the board, so that they know those of today.

    The board counts since the supervisor has started. So before midnight (UTC) of its first day, that is what the usage
    file has of this day; after each midnight, it is less by all that was counted until then.

    Args:
        before: by tenant the tokens of today, from the file as it was when the board was made.
        on_board: tokens of a tenant on the board, by its column.
        clock: Unix seconds.
    """

    def __init__(
        self, before: Mapping[str, int], on_board: Callable[[int], int], clock: Callable[[], float] = time.time
    ) -> None:
        self._add, self._on_board, self._clock = dict(before), on_board, clock
        self._day = day_of(clock())

    def table(self, slots: Mapping[str, int]) -> dict[str, int]:
        """The numbers to be added now, by tenant.

        Args:
            slots: by tenant its column.
        """
        day = day_of(self._clock())
        if day != self._day:
            self._day = day
            self._add = {name: -self._on_board(slot) for name, slot in slots.items()}
        return dict(self._add)
