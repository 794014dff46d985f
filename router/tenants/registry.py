"""The tenants as the supervisor knows them: the keys of the run directory, read again when they change."""

import asyncio
import logging
from collections.abc import Callable

from ...core.background.threads import in_thread
from ...core.errors import RunDirectoryError
from ...core.files import version_of
from ...core.rundir import RunDirectory
from .key_store import METRICS, OWNER, KeyRecord, KeyStore, digest_of
from .tenant import Priority, Tenant

PERIOD_S = 1.0

_log = logging.getLogger(__name__)


class TenantRegistry:
    """Tenants by name, each with its own column of the board for as long as the supervisor runs.

    Args:
        run: of the deployment.
        columns: tenants that the board has room for.
    """

    def __init__(self, run: RunDirectory, columns: int) -> None:
        self._run, self._columns = run, columns
        self._slots: dict[str, int] = {}  # a name keeps its column when its key is revoked: its quota goes on
        self._seen: tuple[int, int, int, int] | None = None  # no file, no tenants
        self._complaint = ""
        self._own = [_owner(run.key(), self._slot(OWNER))]
        if key := _metrics_key(run):
            self._own.append(_metrics(key, self._slot(METRICS)))
        self._tenants = self._own
        self.look()

    @property
    def tenants(self) -> list[Tenant]:
        """The deployment's own keys, then those of `keys.json`."""
        return self._tenants

    def look(self) -> bool:
        """Read the keys if they have changed; whether the tenants are others now. Blocks on the filesystem.

        A file that cannot be read, or is damaged, changes nothing: a complaint is logged once.
        """
        try:
            version = version_of(self._run.keys_path)
            if version == self._seen:
                return False
            records = KeyStore(self._run).read()
        except RunDirectoryError as error:
            self._complain(f"{error}; the keys stay what they were")
            return False
        self._complaint = ""
        is_changed = self._take(records)
        self._seen = version  # from before reading, so that a change meanwhile is seen at the next look
        return is_changed

    @property
    def slots(self) -> dict[str, int]:
        """By name the column of every tenant that there is or was."""
        return dict(self._slots)

    async def watch(self, changed: Callable[[list[Tenant]], None], period_s: float = PERIOD_S) -> None:
        """Look every `period_s` until cancelled, and tell of changes. Reads in a thread: a filesystem may hang."""
        while True:
            await asyncio.sleep(period_s)
            if await in_thread(self.look):
                changed(self._tenants)

    def _take(self, records: list[KeyRecord]) -> bool:
        before, found = self._tenants, list(self._own)
        for record in records:
            slot = self._slot(record.tenant)
            if slot is None:
                self._complain(
                    f"no room for tenant {record.tenant!r} beside {self._columns} others: restart the router"
                )
                continue
            found.append(record.as_tenant(slot))
        self._tenants = found
        return found != before

    def _slot(self, name: str) -> int | None:
        if name not in self._slots and len(self._slots) >= self._columns:
            return None
        return self._slots.setdefault(name, len(self._slots))

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            _log.error("%s", text)
        self._complaint = text


def _owner(key: str, slot: int | None) -> Tenant:
    assert slot is not None, "the first of all"
    return Tenant(name=OWNER, slot=slot, digest=digest_of(key.encode()), priority=Priority.INTERACTIVE, admin=True)


def _metrics(key: str, slot: int | None) -> Tenant:
    assert slot is not None, "the second of all"
    return Tenant(name=METRICS, slot=slot, digest=digest_of(key.encode()), metrics_only=True)


def _metrics_key(run: RunDirectory) -> str | None:
    try:
        return run.metrics_key()
    except RunDirectoryError as error:
        _log.warning("/metrics takes the keys of tenants only: %s", error)
        return None
