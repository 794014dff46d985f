"""What the supervisor's parts tell the relays and hear from them."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ...core.background.rounds import Rounds
from ...core.background.threads import in_thread
from ...core.batches import read_batches
from ...core.rundir import RunDirectory
from ...core.spec.deployment import DeploymentSpec
from ..fleet.batches import Batches
from ..fleet.controller import ControllerReport
from ..fleet.demand import Demand
from ..fleet.outlook import outlooks
from ..fleet.queue import Queue, read_queue
from ..fleet.registry import Registry
from ..tenants.registry import TenantRegistry
from ..tenants.tenant import Tenant
from ..tenants.usage import TokensToday, UsageLedger
from .blamed import remember
from .board import TENANTS, Board
from .counters import Counters
from .file_watch import FileWatch
from .messages import Blamed, BlamedRequests, Certificates, FromRelay, Outlook, Replaced, Report, Tenants, View
from .relays import Relays
from .reports import Reports
from .slots import Slots

_TICK_S = 1.0
_OUTLOOK_S = 1.0
_SCALE_S = 1.0  # who has asked for workers sends a request next
# Between two views: a fleet that changes all the time is told of so often, and one change at once.
_VIEW_PAUSE_S = 0.05
_CERTIFICATE_S = 30.0  # between two looks whether the certificate has been renewed
_DAY_S = 86_400
_CLOCK_S = 60.0  # between two looks at the clock, which may be set, or have stood still with its machine

_log = logging.getLogger(__name__)

ReadCertificate = Callable[[], str | None]  # PEM; blocks on the filesystem, raises SlurminferError


class Supervisor:
    """Knows workers, tenants and certificates for all relays, and what they have counted."""

    def __init__(
        self, run: RunDirectory, spec: DeploymentSpec, board: Board, read_certificate: ReadCertificate
    ) -> None:
        self._spec, self._board, self._slots = spec, board, Slots()
        self.counters = Counters()  # of this process
        self.rounds = Rounds(self.counters.failed_rounds)  # of all that it does again and again
        self.registry = Registry(run, self._slots.slot, self.rounds)
        self.tenants = TenantRegistry(run, TENANTS)
        self.usage = UsageLedger(run.usage_path)
        self.reports = Reports()
        self.demand = Demand()
        self.queue = Queue()  # the workers that there are jobs for, and what the scheduler has said of them
        self.controller = ControllerReport()
        self.batches = Batches()
        self._files = (
            FileWatch("which jobs wait", lambda: read_queue(run), self._set_queue),
            FileWatch("what the controller says", run.read_fleet, self.controller.hear),
            FileWatch("what users have asked for", run.read_scale, self.controller.hear_scale, _SCALE_S),
            FileWatch("how far batches are", lambda: read_batches(run.batches_path), self.batches.hear),
        )
        self._told: dict[str, Outlook] = {}
        self._tokens = TokensToday(self.usage.tokens_elsewhere, lambda slot: board.spent(slot, 0)[2])
        self._told_tokens: dict[str, int] = {}  # to relays, of tenants with a limit
        self._certificates = Certificates(clients=read_certificate())
        self._certificate = FileWatch("the certificate", read_certificate, self._set_certificate, _CERTIFICATE_S)
        self._lives: dict[int, int] = {}  # how many relays of an index there have been
        self._blamed: OrderedDict[bytes, Blamed] = OrderedDict()
        self._relays: Relays | None = None

    def outlooks(self) -> dict[str, Outlook]:
        """By pool, whether it gets a worker."""
        return outlooks(self._spec, self.registry.all(), self.queue, self.controller, time.time())

    # What relays say: control/relays.py calls these.

    def heard(self, relay: int, message: FromRelay) -> None:
        """Take a relay's message."""
        with self.rounds.guarded("messages"):  # it is no reason to end the relay
            if isinstance(message, Report):
                self.registry.served(self.reports.hear(relay, message))
                self.demand.hear(relay, message.lanes)
                self.usage.merge(self._life(relay), message.usage)
            elif isinstance(message, Blamed):
                remember(self._blamed, message)
                self._require_relays().tell(BlamedRequests(list(self._blamed.values())))
            else:
                self.registry.suspect(message)

    def ended(self, relay: int) -> None:
        """Note that a relay has ended: the next one of its index counts from nothing."""
        self.reports.ended(relay)
        self.demand.ended(relay)
        self.usage.forget(self._life(relay))
        self._lives[relay] = self._lives.get(relay, 0) + 1

    def _life(self, relay: int) -> tuple[int, int]:
        return relay, self._lives.get(relay, 0)

    # What relays are told.

    async def start(self, relays: Relays) -> None:
        """Look at the workers once, and tell `relays` all there is from now on."""
        self._relays = relays
        await asyncio.gather(self.registry.look(), *(file.look() for file in self._files))
        self._set_queue(self.queue)  # of the workers that were found now
        self._tell_view()
        self._tell_tenants(self.tenants.tenants)
        relays.tell(self._certificates)

    def accept_commands(self, identity: str) -> None:
        """Let relays accept our own commands, with an identity (PEM) that these can read too."""
        self._tell_certificates(msgspec.structs.replace(self._certificates, commands=identity))

    def replaced(self, replaced: Replaced) -> None:
        """Clients find another router now, or this one again."""
        self._require_relays().tell(replaced)

    async def watch(self) -> None:
        """Follow run directory, tenants and certificate until cancelled. A part that fails begins again."""
        parts: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "registry": self.registry.watch,
            "view": self._follow_workers,
            "keys": lambda: self.tenants.watch(self._tell_tenants),
            "usage": self.usage.keep,
            "quotas": lambda: self.usage.follow(self._tell_tokens),
            "jobs": self._files[0].watch,
            "controller": self._files[1].watch,
            "scale": self._files[2].watch,
            "batches": self._files[3].watch,
            "outlook": self._follow_outlooks,
            "days": self._follow_days,
            "certificate": self._follow_certificate,
            "slots": self._tick,
        }
        await _all(*(self.rounds.repeat(name, part) for name, part in parts.items()))

    async def close(self) -> None:
        """Save what was used, and ask the workers nothing any more."""
        await self.registry.close()
        await in_thread(self.usage.end)

    def _tell_view(self) -> None:
        self._told = self.outlooks()
        self._require_relays().tell(View(self.registry.views(), self._told))
        self.registry.changed.clear()

    def _set_queue(self, queue: Queue) -> None:
        self.queue, now = queue, time.time()
        said = {worker.id: queue.of(worker.id, now) for worker in self.registry.all()}
        self.registry.set_limits({worker: job.ends_at for worker, job in said.items() if job is not None})

    def _set_certificate(self, pem: str | None) -> None:
        self._tell_certificates(msgspec.structs.replace(self._certificates, clients=pem))

    def _tell_tenants(self, tenants: Sequence[Tenant]) -> None:
        tokens = self._tokens.table(self.tenants.slots)
        self._told_tokens = self._limited(tokens)
        self._require_relays().tell(Tenants(list(tenants), tokens))

    def _tell_tokens(self) -> None:
        """Other routers have counted: relays need to know it of tenants whose tokens are limited."""
        if self._limited(self._tokens.table(self.tenants.slots)) != self._told_tokens:
            self._tell_tenants(self.tenants.tenants)

    def _limited(self, tokens: Mapping[str, int]) -> dict[str, int]:
        limited = (tenant.name for tenant in self.tenants.tenants if tenant.tokens_per_day is not None)
        return {name: tokens.get(name, 0) for name in limited}

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

    async def _follow_outlooks(self) -> None:
        """A filesystem that stands still is noticed too: what the controller has said does not hold for ever."""
        while True:
            await asyncio.sleep(_OUTLOOK_S)
            if self.outlooks() != self._told:
                self.registry.changed.set()

    async def _follow_days(self) -> None:
        """At midnight (UTC) everybody's tokens of the day begin at 0, also where a clock is set over it."""
        day = time.time() // _DAY_S
        while True:
            await asyncio.sleep(min(_CLOCK_S, _DAY_S - time.time() % _DAY_S))
            if time.time() // _DAY_S != day:
                day = time.time() // _DAY_S
                self._tell_tenants(self.tenants.tenants)

    async def _follow_certificate(self) -> None:
        if self._certificates.clients is not None:
            await self._certificate.watch()

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
