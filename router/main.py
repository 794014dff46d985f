"""The router's process, which is the supervisor: listen, start relays, say so in `router.json`, drain on SIGTERM."""

import asyncio
import itertools
import logging
import math
import signal
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiohttp import web

from ..core.errors import RunDirectoryError, SlurminferError
from ..core.net.sockets import allow_many_sockets
from ..core.private_folder import private_folder
from ..core.records import RouterRecord
from ..core.rundir import RunDirectory
from ..core.slurm_env import WALLTIME_SIGNAL, job_ends_at
from .announcement import Announcement, router_record
from .api.app import Pages
from .api.sources import Sources
from .batches.limits import Allowed
from .batches.store import BatchStore
from .control.passing import Offer
from .control.processes import RelayProcess
from .control.relays import Relays
from .control.supervisor import Supervisor
from .exits import REPLACED, REQUEUE, STOPPED
from .fleet.registry import Registry
from .handover import IDLE_S, Retirement, can_serve
from .opened import Opened, open_router, setups
from .peer import living_router
from .relay.program import RelayTask
from .responses.sweeping import sweep

DRAIN_S = 20.0
_REQUEUE_S = 10.0  # of the time before the walltime limit, for what comes after draining
_MOST_DRAIN_S = 110.0  # the signal comes a minute before the limit, or two; the limit may have been changed since
_USEFUL_LOOK_S, _USEFUL_LOOKS = 0.25, 20  # the second: after how many of them the predecessor is asked whether it lives
_NEEDLESS_LOOK_S = 1.0
_CONTROL_SOCKET = "control.sock"
_PAGES_DRAIN_S = 1.0  # the relays have ended by then

_log = logging.getLogger(__name__)


def run_router(run: RunDirectory) -> int:
    """Serve the deployment in `run` until a signal ends it, or nobody needs it since another router has taken over.

    What is in flight at a signal is finished: within 20 s after SIGTERM and SIGINT, until the walltime limit after
    SIGUSR2, which Slurm sends before it. For the main thread of a process; handlers of these signals are put back.

    Returns an exit status of exits.py: REQUEUE where SIGUSR2 came alone and no other router serves the deployment now.
    Raises RouterError where it cannot listen, and SpecError or RunDirectoryError where `run` is unusable.
    """
    allow_many_sockets()
    came, is_replaced = uvloop.run(_serve_until_signalled(run, (signal.SIGTERM, signal.SIGINT, WALLTIME_SIGNAL)))
    if is_replaced:
        return REPLACED
    return REQUEUE if came == {WALLTIME_SIGNAL} else STOPPED


async def serve(
    run: RunDirectory,
    stop: asyncio.Event,
    *,
    in_process: bool = False,
    drain_s: Callable[[], float] = lambda: DRAIN_S,
    idle_s: float = IDLE_S,
) -> bool:
    """Serve until `stop` is set, then drain; whether another router serves the deployment at the end.

    Args:
        run: of the deployment.
        stop: ends it. Set here when another router has taken over, and this one was idle for `idle_s`.
        in_process: let the relays run in this event loop instead of processes of their own, for tests.
        drain_s: seconds that requests in flight have at the end; asked then.
        idle_s: seconds.
    """
    spec, predecessor = run.read_spec(), await living_router(run)
    try:
        opened = await open_router(run, spec, predecessor)
    except SlurminferError as error:
        if predecessor is None:
            with suppress(RunDirectoryError):  # the log has the reason too
                run.write_router(router_record(url=None, reason=str(error)))
        raise
    with opened, private_folder() as folder:
        supervisor = Supervisor(run, spec, opened.board, opened.certificate_pem)
        relays = Relays(
            setups(spec, run.key(), opened.count, folder / _CONTROL_SOCKET, run.responses_path),
            opened.board,
            opened.listeners,
            opened.private_listeners,
            RelayTask if in_process else RelayProcess,
            supervisor,
            supervisor.rounds,
        )
        try:
            async with _answering(supervisor, opened, folder / _CONTROL_SOCKET):
                ending = _Ending(stop, drain_s, Retirement(math.inf if spec.router.backend == "sglang" else idle_s))
                return await _serve(opened, supervisor, relays, predecessor, ending)
        finally:
            await supervisor.close()


@dataclass(frozen=True)
class _Ending:
    """When a router ends, and how long that may take."""

    stop: asyncio.Event
    drain_s: Callable[[], float]
    retirement: Retirement


@asynccontextmanager
async def _answering(supervisor: Supervisor, opened: Opened, path: Path) -> AsyncIterator[None]:
    """Answer at the Unix socket `path` what relays do not answer themselves."""
    sources = Sources(
        spec=opened.spec,
        registry=supervisor.registry,
        reports=supervisor.reports,
        demand=supervisor.demand,
        in_flight=opened.board.in_flight,
        tenants=lambda: supervisor.tenants.tenants,
        usage=supervisor.usage.totals,
        tokens_today=supervisor.usage.tokens_today,
        queue=lambda: supervisor.queue,
        controller=supervisor.controller,
        batches=supervisor.batches,
        outlooks=supervisor.outlooks,
        responses=opened.responses,
        openai_batches=BatchStore(opened.run, allowed=Allowed.of(opened.spec.router)),
        served_at=opened.run.served_at(),
        endpoint=lambda: opened.url,
        pages=supervisor.counters,
    )
    runner = web.AppRunner(
        Pages(sources).app(), access_log=None, handler_cancellation=True, shutdown_timeout=_PAGES_DRAIN_S
    )
    await runner.setup()
    try:
        await web.UnixSite(runner, str(path)).start()
        yield
    finally:
        await runner.cleanup()


async def _serve(
    opened: Opened, supervisor: Supervisor, relays: Relays, predecessor: RouterRecord | None, ending: _Ending
) -> bool:
    """Run the relays until it is to end or a part fails, then let what is in flight end; as `serve`."""
    offer = Offer(opened.listeners if opened.spec.router.backend == "native" else [])
    started = asyncio.Event()  # the workers have been looked at
    announcement = Announcement(opened.run, _record(opened, offer), supervisor.accept_commands)

    async def run() -> None:
        await started.wait()
        if predecessor is not None:
            await _until_useful(supervisor.registry, opened.run)
        await relays.run()

    async def announce() -> None:
        while predecessor is not None and not relays.are_serving:
            await asyncio.sleep(_USEFUL_LOOK_S)
        await announcement.publish()
        await announcement.follow(lambda: supervisor.replaced(announcement.replaced))

    async def sweeping() -> None:
        await sweep(opened.run.responses_path, opened.responses, supervisor.counters)

    running = asyncio.create_task(run())
    try:
        await supervisor.start(relays)
        started.set()
        await _until(
            ending.stop,
            running,
            asyncio.create_task(supervisor.watch()),
            asyncio.create_task(supervisor.rounds.repeat("announcement", announce)),
            asyncio.create_task(supervisor.rounds.repeat("offer", offer.run)),
            asyncio.create_task(supervisor.rounds.repeat("responses", sweeping)),
            asyncio.create_task(_until_needless(opened, supervisor, announcement, ending)),
        )
    finally:
        offer.close()
        announcement.retract()
        await relays.drain(ending.drain_s())
        running.cancel()
        await asyncio.wait({running})
    return await announcement.has_successor()


async def _until_useful(registry: Registry, run: RunDirectory) -> None:
    """Wait until clients fare as well here as at the router that they have now, or until that one is gone."""
    for look in itertools.count(1):
        if can_serve(registry) or (look % _USEFUL_LOOKS == 0 and await living_router(run) is None):
            return
        await asyncio.sleep(_USEFUL_LOOK_S)


async def _until_needless(opened: Opened, supervisor: Supervisor, announcement: Announcement, ending: _Ending) -> None:
    """End the router when another one has taken over, and clients no longer come here."""
    while not ending.stop.is_set():
        await asyncio.sleep(_NEEDLESS_LOOK_S)
        reports = supervisor.reports
        at_workers = sum(opened.board.in_flight(worker.slot) for worker in supervisor.registry.all())
        if (
            ending.retirement.may_end(
                time.monotonic(),
                is_replaced=announcement.successor is not None,
                requests=sum(reports.counters().requests.values()),
                in_flight=at_workers + sum(reports.queued().values()) + reports.connections().get("busy", 0),
            )
            and await announcement.has_successor()
        ):
            _log.info("clients no longer come here since another router has taken over")
            ending.stop.set()


def _record(opened: Opened, offer: Offer) -> RouterRecord:
    return router_record(
        url=opened.url,
        listeners=offer.name,
        private_url="https://{}:{}".format(*opened.private_listeners[0].getsockname()),
        fingerprint="" if opened.certificate is None else opened.certificate.fingerprint,
    )


async def _until(stop: asyncio.Event, *tasks: asyncio.Task[None]) -> None:
    """Return when `stop` is set. Raises what ends one of the tasks; all but the first are cancelled at the end."""
    stopped = asyncio.create_task(stop.wait())
    waiting: set[asyncio.Task[object]] = {stopped, *tasks}
    try:
        while not stopped.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in (stopped, *tasks[1:]):
            task.cancel()
        await asyncio.wait({stopped, *tasks[1:]})


async def _serve_until_signalled(
    run: RunDirectory, signals: Sequence[signal.Signals]
) -> tuple[set[signal.Signals], bool]:
    """The signals that came until all is drained, and whether another router serves the deployment."""
    stop, ends_at = asyncio.Event(), job_ends_at(run.read_spec().router_time_s)
    with _setting(stop, signals) as came:
        is_replaced = await serve(run, stop, drain_s=lambda: drain_seconds(came, ends_at, time.time()))
    return came, is_replaced


def drain_seconds(came: Collection[signal.Signals], ends_at: float | None, now: float) -> float:
    """How long requests in flight have after these signals.

    Args:
        ends_at: walltime limit of the job, Unix time.
        now: Unix time.
    """
    if ends_at is None or set(came) != {WALLTIME_SIGNAL}:
        return DRAIN_S
    return min(max(ends_at - now - _REQUEUE_S, DRAIN_S), _MOST_DRAIN_S)


@contextmanager
def _setting(stop: asyncio.Event, signals: Sequence[signal.Signals]) -> Iterator[set[signal.Signals]]:
    """`stop` is set by any of `signals`, whose set grows; whoever handled them before does so again afterwards."""
    loop, came = asyncio.get_running_loop(), set[signal.Signals]()
    before = {number: signal.getsignal(number) for number in signals}

    def note(number: signal.Signals) -> None:
        came.add(number)
        stop.set()

    for number in signals:
        loop.add_signal_handler(number, note, number)
    try:
        yield came
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
