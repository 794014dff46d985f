"""What the supervisor asks one life of a worker: its health each second, its load now and then, a token if in doubt."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from ...core.background.rounds import Rounds
from ...core.errors import SlurminferError
from ...core.rundir import RunDirectory
from .engine_load import parse_load, with_rates
from .probe import LATE, OwnFaultError, Probe, probe_of
from .trust import REFUSING, SILENT
from .worker import Worker

HEALTH_INTERVAL_S = 1.0
LOAD_INTERVAL_S = 5.0
# A worker with nothing to do makes a token in less; one that computes for others lets it wait behind them. The least is
# for one that says that it has nothing to do.
IDLE_TOKEN_TIMEOUT_S = 5.0
TOKEN_TIMEOUT_S = 15.0
BUSY_TOKEN_TIMEOUT_S = 120.0

_log = logging.getLogger(__name__)


class Attendant:
    """Keeps the trust and the load of one worker up to date. Whatever fails here is the trouble of that worker alone.

    Args:
        run: the deployment's directory, which has the worker's identity.
        worker: the life that is asked.
        on_change: called with the worker when something may have changed that relays are told.
        is_dispensable: whether another worker can take the requests, so that this one may be ejected for its faults.
        rounds: of the supervisor.
    """

    def __init__(
        self,
        run: RunDirectory,
        worker: Worker,
        on_change: Callable[[Worker], None],
        is_dispensable: Callable[[Worker], bool],
        rounds: Rounds,
    ) -> None:
        self._run, self._worker = run, worker
        self._on_change, self._is_dispensable, self._rounds = on_change, is_dispensable, rounds
        self._probe: Probe | None = None
        self._hurry, self._hurry_load, self._was_asked = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._hurry_token = asyncio.Event()
        self._doubt = ""  # SILENT or REFUSING, since the worker was asked for a token last
        self._must_generate = False
        self._values: dict[str, float] = {}  # of the last reading of its metrics
        self._read_at = 0.0
        self._task = asyncio.create_task(self._attend())

    async def was_asked(self) -> None:
        """Return once the worker has been asked for its health, and for its model if it is healthy."""
        await self._was_asked.wait()

    def hurry(self) -> None:
        """Ask for the worker's health now."""
        self._hurry.set()

    def fault(self, kind: str, reason: str) -> None:
        """Take a request that has failed at the worker."""
        self.hurry()
        now = time.monotonic()
        if kind in (SILENT, REFUSING):
            self._doubt = kind
            self._must_generate |= kind == REFUSING
            self._hurry_token.set()
        elif self._worker.trust.fault(now, kind) and self._is_dispensable(self._worker):
            with self._noting():
                self._worker.trust.eject(now, f"its requests fail: {reason}")

    async def close(self) -> None:
        """Ask no more."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        if self._probe is not None:
            await self._probe.close()

    async def _attend(self) -> None:
        await asyncio.gather(
            self._forever("health", self._ask_health, HEALTH_INTERVAL_S, self._hurry),
            self._forever("load", self._ask_load, LOAD_INTERVAL_S, self._hurry_load),
            self._forever("token", self._ask_token, HEALTH_INTERVAL_S, self._hurry_token),
        )

    async def _forever(
        self, what: str, ask: Callable[[], Coroutine[Any, Any, None]], interval_s: float, hurry: asyncio.Event
    ) -> None:
        """Ask every `interval_s`, and at once when `hurry` is set, until cancelled."""
        while True:
            hurry.clear()
            with self._rounds.guarded(what):  # the next time may succeed, and the other questions must go on
                await ask()
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await hurry.wait()

    async def _ask_health(self) -> None:
        worker = self._worker
        if not worker.probeable:
            return
        try:
            trouble = await self._health()
            if trouble == LATE and worker.choosable and not self._is_dispensable(worker):
                return  # its machine may be overloaded, and there is no other one; a relay says if nothing comes at all
            with self._noting():
                worker.trust.probed(time.monotonic(), trouble)
            if self._probe is not None and not trouble and worker.card is None:
                worker.card = await self._probe.card()
                self._hurry_load.set()
        except OwnFaultError as error:
            _log.warning("worker %s cannot be asked for its health: %s", worker.id, error)
        finally:
            self._was_asked.set()

    async def _health(self) -> str:
        try:
            if self._probe is None:
                self._probe = await probe_of(self._run, self._worker.record)
            return await self._probe.health()
        except (SlurminferError, ValueError) as error:  # its record shows no way to it
            return str(error)

    async def _ask_load(self) -> None:
        worker = self._worker
        if self._probe is None or not worker.choosable:
            return
        now = time.monotonic()
        with suppress(OwnFaultError, ValueError):  # what an engine says of its load is a help, not a need
            text = await self._probe.metrics()
            load, values = parse_load(worker.record.engine, text or "")
            worker.load = with_rates(load, values, self._values, now - self._read_at)
            if values.get("generated", 0.0) > self._values.get("generated", 0.0):
                worker.trust.produced(now)
            self._values, self._read_at = values, now
            self._on_change(worker)

    async def _ask_token(self) -> None:
        worker, (doubt, self._doubt) = self._worker, (self._doubt, "")
        if self._probe is None or not worker.probeable:
            return
        is_doubted = bool(doubt) and worker.healthy
        if not is_doubted and not worker.trust.wants_token(time.monotonic()):
            return
        if is_doubted and await self._has_stopped():
            return
        before = self._progress()
        try:
            trouble = await self._probe.token(self._token_timeout_s(is_doubted), must_generate=self._must_generate)
        except OwnFaultError:
            return
        if trouble and self._progress() != before:
            return  # it computes for others meanwhile
        with self._noting():
            is_final = is_doubted and self._is_dispensable(worker)
            worker.trust.made_token(time.monotonic(), trouble, is_final=is_final)

    async def _has_stopped(self) -> bool:
        """Look at a worker that is in doubt: whether its health page does not answer. Its load is known then."""
        try:
            trouble = await self._health()
        except OwnFaultError:
            return True  # nothing is known of the worker
        if not trouble:
            await self._ask_load()
            return False
        with self._noting():
            self._worker.trust.stopped(time.monotonic(), trouble)
        return True

    def _token_timeout_s(self, is_load_new: bool) -> float:
        """How long a worker has for a token, by what it says of its requests."""
        load = self._worker.load
        if is_load_new and load.running == 0 and not load.waiting:
            return IDLE_TOKEN_TIMEOUT_S
        return BUSY_TOKEN_TIMEOUT_S if load.running else TOKEN_TIMEOUT_S

    def _progress(self) -> tuple[int, float | None]:
        """What rises while the worker computes."""
        return self._worker.trust.served_total, self._worker.load.generated

    def _noting(self) -> "_Noting":
        return _Noting(self._worker, self._on_change)


class _Noting:
    """Says in the log and to relays what becomes of a worker's trust inside of it."""

    def __init__(self, worker: Worker, on_change: Callable[[Worker], None]) -> None:
        self._worker, self._on_change = worker, on_change

    def __enter__(self) -> None:
        self._was_healthy, self._was_ejected = self._worker.healthy, self._worker.trust.is_ejected

    def __exit__(self, *_: object) -> None:
        worker, trust = self._worker, self._worker.trust
        if trust.is_ejected and not self._was_ejected:
            worker.ejections += 1
            _log.warning("worker %s gets no requests until it has produced a token: %s", worker.id, trust.trouble)
        elif worker.healthy != self._was_healthy:
            _log.info("worker %s %s", worker.id, "is healthy" if worker.healthy else f"is unhealthy: {trust.trouble}")
        if self._was_ejected and not trust.is_ejected:
            worker.healthy_since = time.time()
        self._on_change(worker)
