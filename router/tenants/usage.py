"""What tenants have used, as the supervisor counts it and keeps it in its file (usage_files.py).

Relays report what they have counted since they started; `UsageLedger` adds what is new of each report. Reports come
each second, and the file is written each second in which something has changed, and when the router ends. A router
that is killed loses what came after the last writing: two seconds. Where its relays outlive it, what was in flight at
that moment is lost too.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from ...core.background.threads import in_thread
from ...core.errors import RunDirectoryError
from ...core.slurm_env import job_id
from .tenant import Usage
from .usage_files import BEAT_S, Table, UsageFiles, add, day_of, new_owner, summed, tokens_on

PERIOD_S = 1.0
_SHARE_OF_TIME = 0.05  # that writing and reading may take: on a slow filesystem they come less often
_FIELDS = Usage.__struct_fields__

_log = logging.getLogger(__name__)


class UsageLedger:
    """The usage of all tenants; belongs to the supervisor.

    Args:
        path: of `usage.json`. One that is damaged is put aside, and counting begins anew.
        clock: Unix seconds.
        owner: see `UsageFiles`.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time, owner: str = "") -> None:
        self._path, self._clock = path, clock
        self._files = UsageFiles(path, owner or new_owner(job_id() or "local"))
        self._reported: dict[Hashable, dict[str, Usage]] = {}  # by relay's life
        self._changed, self._complaint, self._written_at = False, "", 0.0
        self._writing = threading.Lock()  # the last writing may begin while another one is still under way
        self._own: Table = {}
        self._elsewhere = self._read()

    @property
    def file(self) -> Path:
        """Where this router writes."""
        return self._files.own

    @property
    def tenants(self) -> Table:
        """By tenant all that it has used, at other routers too. To be computed, and a copy."""
        return summed([self._elsewhere, self._own])

    def totals(self) -> dict[str, Usage]:
        """By tenant what it has used in all."""
        found = {name: msgspec.structs.replace(one.total) for name, one in self._elsewhere.items()}
        for name, one in self._own.items():
            total = found.setdefault(name, Usage())
            for field in _FIELDS:
                setattr(total, field, getattr(total, field) + getattr(one.total, field))
        return found

    def tokens_today(self) -> dict[str, int]:
        """By tenant the prompt and generated tokens of this UTC day."""
        found = self.tokens_elsewhere()
        for name, tokens in tokens_on(day_of(self._clock()), self._own).items():
            found[name] = found.get(name, 0) + tokens
        return found

    def tokens_elsewhere(self) -> dict[str, int]:
        """The same without those that this router has counted."""
        return tokens_on(day_of(self._clock()), self._elsewhere)

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
                add(self._own, name, day, Usage(**new))
                self._changed = True

    def forget(self, life: Hashable) -> None:
        """Note that a relay has ended, and that its last report was merged."""
        self._reported.pop(life, None)

    async def keep(self, period_s: float = PERIOD_S) -> None:
        """Write the file every `period_s` if something has changed, until cancelled. Call `end` at the end."""
        pause_s = period_s
        while True:
            await asyncio.sleep(pause_s)
            is_due = bool(self._own) and self._clock() - self._written_at >= BEAT_S
            if self._changed or is_due:
                own, self._changed = summed([self._own]), False
                began = time.monotonic()
                await in_thread(partial(self._write, own))
                pause_s = max(period_s, (time.monotonic() - began) / _SHARE_OF_TIME)

    async def follow(self, changed: Callable[[], None], period_s: float = PERIOD_S) -> None:
        """Look every `period_s` what other routers have counted, until cancelled; tell when that has changed."""
        pause_s = period_s
        while True:
            await asyncio.sleep(pause_s)
            began = time.monotonic()
            if await in_thread(self.look):
                changed()
            pause_s = max(period_s, (time.monotonic() - began) / _SHARE_OF_TIME)

    def look(self) -> bool:
        """Look what other routers have counted; whether that has changed. Blocks on the filesystem."""
        try:
            self._files.merge_ended(self._clock())
            found = self._files.elsewhere()
            if self._files.is_merged():
                self._begin_anew()
        except RunDirectoryError as error:
            self._complain(f"what other routers have counted cannot be read: {error}")
            return False
        is_changed, self._elsewhere = found != self._elsewhere, found
        return is_changed

    def write(self) -> None:
        """Write the file now if something has changed since it was written. Blocks."""
        if self._changed:
            self._changed = False
            self._write(self._own)

    def end(self) -> None:
        """Write the file for the last time, and add it to `usage.json`. Blocks."""
        if self._own:
            self._write(self._own, ended=True)
        try:
            self._files.merge_ended(self._clock())
        except RunDirectoryError as error:  # the next router does it
            self._complain(f"usage of tenants stays in {self.file}: {error}")

    def _begin_anew(self) -> None:
        """Count from 0 in another file: after a day of silence somebody has taken this router for dead."""
        self._files = UsageFiles(self._path, new_owner(job_id() or "local"))
        self._own, self._changed = {}, False

    def _write(self, own: Table, *, ended: bool = False) -> None:
        """Write the file. Where that fails, such as on a full disk, nothing is lost: it is tried again."""
        try:
            with self._writing:
                self._files.write(own, ended=ended)
            self._written_at = self._clock()
        except RunDirectoryError as error:
            self._changed = True
            self._complain(f"usage of tenants cannot be saved: {error}")
        else:
            self._complaint = ""

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            _log.error("%s", text)
        self._complaint = text

    def _read(self) -> Table:
        try:
            return self._files.elsewhere()
        except RunDirectoryError as error:
            self._files.put_aside(error)
            return self._files.elsewhere()


class TokensToday:
    """What relays add to the tokens on the board, so that they know those of today.

    The board counts since the supervisor has started. So that is what other routers have counted today (UTC), those
    before this one included, less what was on the board at the last midnight.

    Args:
        elsewhere: by tenant the tokens that other routers have counted today.
        on_board: tokens of a tenant on the board, by its column.
        clock: Unix seconds.
    """

    def __init__(
        self,
        elsewhere: Callable[[], Mapping[str, int]],
        on_board: Callable[[int], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._elsewhere, self._on_board, self._clock = elsewhere, on_board, clock
        self._day, self._at_midnight = day_of(clock()), dict[str, int]()

    def table(self, slots: Mapping[str, int]) -> dict[str, int]:
        """The numbers to be added now, by tenant.

        Args:
            slots: by tenant its column.
        """
        day = day_of(self._clock())
        if day != self._day:
            self._day = day
            self._at_midnight = {name: self._on_board(slot) for name, slot in slots.items()}
        found = {name: -tokens for name, tokens in self._at_midnight.items()}
        for name, tokens in self._elsewhere().items():
            found[name] = found.get(name, 0) + tokens
        return found
