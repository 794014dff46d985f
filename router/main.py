"""The router's process, which is the supervisor: listen, start relays, say so in `router.json`, drain on SIGTERM."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import uvloop
from aiohttp import web

from ..core.errors import RunDirectoryError, SlurminferError
from ..core.net.address import node_address
from ..core.net.sockets import allow_many_sockets
from ..core.private_folder import private_folder
from ..core.records import RouterRecord
from ..core.rundir import RunDirectory
from ..core.spec import DeploymentSpec, RouterSpec
from .announcement import Announcement, router_record
from .api.app import Pages
from .api.sources import Sources
from .certificate import Certificate, read_certificate
from .control.board import Board
from .control.listeners import hold, open_listeners
from .control.messages import Setup
from .control.processes import RelayProcess
from .control.relays import Relays
from .control.supervisor import Supervisor
from .policies.eligible import PoolRouting
from .relay.program import RelayTask
from .sglang.installed import require_installed

DRAIN_S = 20.0
_CONTROL_SOCKET = "control.sock"
_PAGES_DRAIN_S = 1.0  # the relays have ended by then


def run_router(run: RunDirectory) -> None:
    """Serve the deployment in `run` until SIGTERM or SIGINT, then finish what is in flight, for up to 20 s.

    For the main thread of a process; other signal handlers stay as they are, and these two are put back.
    Raises RouterError where it cannot listen, and SpecError or RunDirectoryError where `run` is unusable.
    """
    allow_many_sockets()
    uvloop.run(_serve_until_signalled(run))


async def serve(run: RunDirectory, stop: asyncio.Event, *, in_process: bool = False) -> None:
    """Serve until `stop` is set, then drain.

    Args:
        run: of the deployment.
        stop: ends it.
        in_process: let the relays run in this event loop instead of processes of their own, for tests.
    """
    spec = run.read_spec()
    try:
        opened = await _open(run, spec)
    except SlurminferError as error:
        with suppress(RunDirectoryError):  # the log has the reason too
            run.write_router(router_record(url=None, reason=str(error)))
        raise
    with opened, private_folder() as folder:
        supervisor = Supervisor(run, opened.board, opened.certificate_pem)
        relays = Relays(
            _setups(spec, run.key(), opened.count, folder / _CONTROL_SOCKET),
            opened.board,
            opened.listeners,
            opened.private_listeners,
            RelayTask if in_process else RelayProcess,
            supervisor,
        )
        try:
            async with _answering(supervisor, opened, folder / _CONTROL_SOCKET):
                await _serve(run, opened, supervisor, relays, stop)
        finally:
            await supervisor.close()


@dataclass(frozen=True)
class _Opened:
    """What a router needs before it can serve; closed with the `with`."""

    run: RunDirectory
    spec: DeploymentSpec
    address: str
    certificate: Certificate | None
    listeners: list[socket.socket]
    private_listeners: list[socket.socket]
    board: Board

    def __enter__(self) -> "_Opened":
        return self

    def __exit__(self, *error: object) -> None:
        for sock in (*self.listeners, *self.private_listeners):
            sock.close()
        self.board.close()

    @cached_property
    def url(self) -> str:
        """Of the endpoint, for clients."""
        scheme = "http" if self.certificate is None else "https"
        return "{}://{}:{}".format(scheme, *self.listeners[0].getsockname())

    @property
    def count(self) -> int:
        """How many relays there are."""
        return len(self.listeners)

    def certificate_pem(self) -> str | None:
        """The certificate for clients as it is now. Blocks on the filesystem; raises SlurminferError."""
        found = read_certificate(self.run, self.spec.router, _hosts(self.address))
        return None if found is None else found.pem


async def _open(run: RunDirectory, spec: DeploymentSpec) -> _Opened:
    """Raises SlurminferError."""
    address, router = node_address(), spec.router
    certificate = read_certificate(run, router, _hosts(address))
    listeners = await _client_sockets(router, address)
    try:
        private_listeners = await open_listeners(address, 0, len(listeners))
        board = Board.create(len(listeners))
    except SlurminferError:
        for listener in listeners:
            listener.close()
        raise
    return _Opened(run, spec, address, certificate, listeners, private_listeners, board)


async def _client_sockets(router: RouterSpec, address: str) -> list[socket.socket]:
    """The endpoint's port, once for each relay; only held where another program is to listen. Raises RouterError."""
    if router.backend == "sglang":
        await require_installed(router.python)
        return [await hold(address, router.port)]
    return await open_listeners(address, router.port, router.relays or router.cpus_per_task)


def _hosts(address: str) -> list[str]:
    """By which clients reach this router."""
    return list(dict.fromkeys([socket.gethostname(), address, "localhost", "127.0.0.1"]))


def _setups(spec: DeploymentSpec, key: str, count: int, control_socket: Path) -> list[Setup]:
    router = msgspec.to_builtins(spec.router)
    pools = [
        PoolRouting(name=pool.name, model=spec.model_of(pool).served_name, spill_after=pool.spill_after)
        for pool in spec.pool
    ]
    return [
        Setup(
            index=index,
            relays=count,
            router=router,
            pools=msgspec.to_builtins(pools),
            control_socket=str(control_socket),
            key=key if spec.router.backend == "sglang" else "",
        )
        for index in range(count)
    ]


@asynccontextmanager
async def _answering(supervisor: Supervisor, opened: _Opened, path: Path) -> AsyncIterator[None]:
    """Answer at the Unix socket `path` what relays do not answer themselves."""
    sources = Sources(
        spec=opened.spec,
        registry=supervisor.registry,
        reports=supervisor.reports,
        in_flight=opened.board.in_flight,
        tenants=lambda: supervisor.tenants.tenants,
        usage=lambda: {name: used.total for name, used in supervisor.usage.tenants.items()},
        tokens_today=supervisor.usage.tokens_today,
        queue=supervisor.queue,
        endpoint=lambda: opened.url,
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
    run: RunDirectory, opened: _Opened, supervisor: Supervisor, relays: Relays, stop: asyncio.Event
) -> None:
    """Run the relays until `stop` is set or a part fails, then let what is in flight end."""
    running = asyncio.create_task(relays.run())
    announcement = Announcement(run, _record(opened), supervisor.accept_commands)
    try:
        await supervisor.start(relays)
        await _until(
            stop, running, asyncio.create_task(supervisor.watch()), asyncio.create_task(announcement.publish())
        )
    finally:
        announcement.retract()
        await relays.drain(DRAIN_S)
        running.cancel()
        await asyncio.wait({running})


def _record(opened: _Opened) -> RouterRecord:
    return router_record(
        url=opened.url,
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


async def _serve_until_signalled(run: RunDirectory) -> None:
    stop = asyncio.Event()
    with _setting(stop, signal.SIGTERM, signal.SIGINT):
        await serve(run, stop)


@contextmanager
def _setting(stop: asyncio.Event, *signals: signal.Signals) -> Iterator[None]:
    """`stop` is set by any of `signals`; whoever handled them before does so again afterwards."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in signals}
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
