"""The router's process: bind, look, accept, say so in `router.json`, drain on SIGTERM."""

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import uvloop
from aiohttp import web

from ..core.errors import RouterError, RunDirectoryError
from ..core.net.address import node_address
from ..core.net.http_limits import ConnectionGuard, ConnectionLimits, limits_of_process
from ..core.net.sockets import BACKLOG, allow_many_sockets, listening_socket
from ..core.rundir import RunDirectory
from ..core.spec import RouterSpec
from .announcement import Announcement, router_record
from .api.access import Keys, Origins, metrics_key
from .api.app import Api
from .fleet.registry import Registry
from .metrics import Metrics
from .policies import policy_named
from .relay.failover import Relay

DRAIN_S = 20.0
# Descriptors for probes, files and libraries; those for requests to workers are counted with their clients'.
_SPARE_DESCRIPTORS = 64

_log = logging.getLogger(__name__)


def run_router(run: RunDirectory) -> None:
    """Serve the deployment in `run` until SIGTERM or SIGINT, then finish what is in flight, for up to 20 s.

    For the main thread of a process; other signal handlers stay as they are, and these two are put back.
    Raises RouterError where it cannot listen, and SpecError or RunDirectoryError where `run` is unusable.
    """
    allow_many_sockets()
    uvloop.run(_serve_until_signalled(run))


async def serve(run: RunDirectory, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then drain."""
    spec, key = run.read_spec(), run.key()
    keys, origins = Keys(key, metrics_key(run)), Origins(spec.router.allowed_origins)
    with _listening(run, spec.router.port) as sock:
        guard = ConnectionGuard(connection_limits(spec.router))
        registry = Registry(run)
        try:
            await registry.look()
            metrics = Metrics(registry, guard)
            relay = Relay(registry, policy_named(spec.router.policy), metrics)
            app = Api(keys, origins, guard, registry, relay, metrics).app()
            await _accept(run, app, guard, sock, registry, stop)
        finally:
            await registry.close()


def connection_limits(spec: RouterSpec) -> ConnectionLimits:
    """How many connections clients may have: each may need another one to a worker."""
    limits = limits_of_process(spare=_SPARE_DESCRIPTORS, descriptors_each=2)
    return replace(limits, strangers_per_source=spec.pending_connections or limits.strangers_per_source)


async def _serve_until_signalled(run: RunDirectory) -> None:
    stop = asyncio.Event()
    with _setting(stop, signal.SIGTERM, signal.SIGINT):
        await serve(run, stop)


async def _accept(
    run: RunDirectory,
    app: web.Application,
    guard: ConnectionGuard,
    sock: socket.socket,
    registry: Registry,
    stop: asyncio.Event,
) -> None:
    """Answer requests until `stop` is set or the registry's watch fails, then let what is in flight end."""
    # handler_cancellation: a client that hangs up ends its handler, which closes the worker's connection.
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=DRAIN_S, auto_decompress=False
    )
    await runner.setup()
    announcement = Announcement(run, runner, url="http://{}:{}".format(*sock.getsockname()))
    try:
        await guard.listen(runner, sock, backlog=BACKLOG)
        announcing = asyncio.create_task(announcement.publish())
        try:
            await _watch_until(registry, stop)
        finally:
            announcing.cancel()
            guard.close()
            announcement.retract()
    finally:
        await runner.cleanup()


async def _watch_until(registry: Registry, stop: asyncio.Event) -> None:
    watch, stopped = asyncio.create_task(registry.watch()), asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({watch, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        watch.cancel()
        stopped.cancel()


@contextmanager
def _listening(run: RunDirectory, port: int) -> Iterator[socket.socket]:
    """A socket that listens on this node's address. Raises RouterError, and leaves the reason in `router.json`."""
    address = node_address()
    try:
        sock = listening_socket(address, port)
    except OSError as error:
        advice = "choose another router.port in the spec (0 takes any free one)"
        reason = f"cannot listen on {address}:{port}: {error.strerror}; {advice}"
        with suppress(RunDirectoryError):  # the log has the reason too
            run.write_router(router_record(url=None, reason=reason))
        raise RouterError(reason) from error
    with sock:
        yield sock


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
