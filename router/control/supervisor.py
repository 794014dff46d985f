"""What the supervisor's parts tell the relays and hear from them."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ...core.errors import SlurminferError
from ...core.rundir import RunDirectory
from ...core.threads import in_thread
from ..fleet.queue import Queue, QueueWatch
from ..fleet.registry import Registry
from ..tenants.registry import TenantRegistry
from ..tenants.tenant import Tenant
from ..tenants.usage import TokensToday, UsageLedger
from .board import TENANTS, Board
from .messages import Certificates, FromRelay, Report, Tenants, View
from .relays import Relays
from .reports import Reports
from .slots import Slots

_TICK_S = 1.0
# Between two views: a fleet that changes all the time is told of so often, and one change at once.
_VIEW_PAUSE_S = 0.05
_CERTIFICATE_S = 30.0  # between two looks whether the certificate has been renewed
_DAY_S = 86_400

_log = logging.getLogger(__name__)

ReadCertificate = Callable[[], str | None]  # PEM; blocks on the filesystem, raises SlurminferError


class Supervisor:
    """Knows workers, tenants and certificates for all relays, and what they have counted."""

    def __init__(self, run: RunDirectory, board: Board, read_certificate: ReadCertificate) -> None:
        self._board, self._slots = board, Slots()
        self.registry = Registry(run, self._slots.slot)
        self.tenants = TenantRegistry(run, TENANTS)
        self.usage = UsageLedger(run.usage_path)
        self.reports = Reports()
        self._queue = QueueWatch(run)
        self._tokens = TokensToday(self.usage.tokens_today(), lambda slot: board.spent(slot, 0)[2])
        self._read_certificate = read_certificate
        self._certificates = Certificates(clients=read_certificate())
        self._lives: dict[int, int] = {}  # how many relays of an index there have been
        self._relays: Relays | None = None

    def queue(self) -> Queue:
        """The workers that there are jobs for, and what the scheduler has said of them."""
        return self._queue.queue

    # What relays say: control/relays.py calls these.

    def heard(self, relay: int, message: FromRelay) -> None:
        """Take a relay's message."""
        if isinstance(message, Report):
            self.registry.served(self.reports.hear(relay, message))
            self.usage.merge(self._life(relay), message.usage)
        else:
            self.registry.suspect(message)

    def ended(self, relay: int) -> None:
        """Note that a relay has ended: the next one of its index counts from nothing."""
        self.reports.ended(relay)
        self.usage.forget(self._life(relay))
        self._lives[relay] = self._lives.get(relay, 0) + 1

    def _life(self, relay: int) -> tuple[int, int]:
        return relay, self._lives.get(relay, 0)

    # What relays are told.

    async def start(self, relays: Relays) -> None:
        """Look at the workers once, and tell `relays` all there is from now on."""
        self._relays = relays
        await asyncio.gather(self.registry.look(), self._queue.look())
        self._tell_view()
        self._tell_tenants(self.tenants.tenants)
        relays.tell(self._certificates)

    def accept_commands(self, identity: str) -> None:
        """Let relays accept our own commands, with an identity (PEM) that these can read too."""
        self._tell_certificates(msgspec.structs.replace(self._certificates, commands=identity))

    async def watch(self) -> None:
        """Follow run directory, tenants and certificate until cancelled. Raises what ends one of the parts."""
        await _all(
            self.registry.watch(),
            self._follow_workers(),
            self.tenants.watch(self._tell_tenants),
            self.usage.keep(),
            self._queue.watch(),
            self._follow_days(),
            self._follow_certificate(),
            self._tick(),
        )

    async def close(self) -> None:
        """Save what was used, and ask the workers nothing any more."""
        await self.registry.close()
        await in_thread(self.usage.write)

    def _tell_view(self) -> None:
        self.registry.changed.clear()
        self._require_relays().tell(View(self.registry.views()))

    def _tell_tenants(self, tenants: Sequence[Tenant]) -> None:
        tokens = self._tokens.table(self.tenants.slots)
        self._require_relays().tell(Tenants(list(tenants), tokens))

    def _tell_certificates(self, certificates: Certificates) -> None:
        if certificates != self._certificates:
            self._certificates = certificates
            self._require_relays().tell(certificates)

    def _require_relays(self) -> Relays:
        assert self._relays is not None, "start() comes before"
        return self._relays

    async def _follow_workers(self) -> None:
        while True:
            await self.registry.changed.wait()
            self._tell_view()
            await asyncio.sleep(_VIEW_PAUSE_S)

    async def _follow_days(self) -> None:
        """At midnight (UTC) everybody's tokens of the day begin at 0."""
        while True:
            await asyncio.sleep(_DAY_S - time.time() % _DAY_S)
            self._tell_tenants(self.tenants.tenants)

    async def _follow_certificate(self) -> None:
        said = ""
        while self._certificates.clients is not None:
            await asyncio.sleep(_CERTIFICATE_S)
            try:
                found = await in_thread(self._read_certificate)
            except SlurminferError as error:  # half of the files may be new
                if str(error) != said:
                    _log.warning("the certificate stays what it was: %s", error)
                said = str(error)
            else:
                said = ""
                self._tell_certificates(msgspec.structs.replace(self._certificates, clients=found))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            lives = {worker.life for worker in self.registry.all()}
            self._slots.keep(lives, self._is_idle, time.monotonic())

    def _is_idle(self, slot: int) -> bool:
        return self._board.in_flight(slot) == 0 and self._board.pending_tokens(slot) == 0


async def _all(*parts: Coroutine[Any, Any, None]) -> None:
    """Run the parts until the first one fails, or all are cancelled."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
