"""What stands in the relay's place with `backend = "sglang"`: sglang-router for clients, and the port for our commands.

sglang-router listens on the endpoint's port itself. The relay's process starts it, tells it of the workers, and starts
it again when it dies.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import aiohttp
import msgspec

from ...core.background.rounds import Rounds
from ...core.errors import RouterError
from ...core.net.connection_guard import Guard, limits_of_process
from ...core.spec.router import RouterSpec
from ..control.backoff import Backoff
from ..control.board import Board
from ..control.messages import BlamedRequests, FromRelay, Replaced, Report, Setup, Tenants, View
from ..http.server import Server
from .commands import Commands
from .process import RustRouter
from .workers_api import RustWorkers

_LOOK_S = 1.0  # between two looks at the workers that sglang-router has
_SPARE_DESCRIPTORS = 64

_log = logging.getLogger(__name__)


class SglangServer:
    """Implements `Server` of control/relay_link.py.

    Args:
        setup: what it is.
        board: where the supervisor's pages find the requests in flight.
        held: the endpoint's port, bound but not listening: sglang-router listens there.
        send: sends to the supervisor; nothing is sent.
        tls: for clients; there is none with this backend.
    """

    def __init__(
        self,
        setup: Setup,
        board: Board,
        held: socket.socket,
        send: Callable[[FromRelay], None],
        tls: ssl.SSLContext | None,
    ) -> None:
        assert tls is None, "core/spec.py refuses it"
        address, port = held.getsockname()
        self._rust = RustRouter(msgspec.convert(setup.router, RouterSpec), address, port, setup.key)
        self._workers = RustWorkers(self._rust.origin, setup.key)
        self._commands = Commands(Path(setup.control_socket), address, port, setup.key)
        limits = limits_of_process(spare=_SPARE_DESCRIPTORS, descriptors_each=2)
        self._rounds = Rounds(self._commands.counters.failed_rounds)
        self._server = Server(self._commands, Guard(limits), rounds=self._rounds)
        self._row, self._in_flight = board.row(setup.index), dict[int, int]()
        self._view = View([])
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def view(self, view: View) -> None:
        """Take the workers that there are."""
        self._view = view
        self._changed.set()

    def tenants(self, tenants: Tenants) -> None:
        """Take the keys of our own commands; sglang-router knows the deployment's key only."""
        self._commands.tenants(tenants.tenants)
        unknown = [tenant.name for tenant in tenants.tenants if not tenant.admin and not tenant.metrics_only]
        if unknown:
            _log.warning("sglang-router refuses the keys of these tenants: %s", ", ".join(unknown))

    def blamed(self, blamed: BlamedRequests) -> None:
        """Nothing: sglang-router decides what is sent to whom."""

    async def replaced(self, replaced: Replaced) -> None:
        """Nothing: sglang-router keeps the connections of its clients."""

    async def start(self) -> None:
        """Start sglang-router. Raises RouterError."""
        await self._rust.start()
        self._tasks = [
            asyncio.create_task(self._rounds.repeat("sglang", self._keep_running)),
            asyncio.create_task(self._rounds.repeat("workers", self._follow_workers)),
        ]

    async def accept_commands(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        """Accept our own commands too."""
        await self._server.listen(listener, tls, private=True)
        self._server.start_clock()

    async def drain(self, seconds: float) -> None:
        """Accept no more, and wait until what is in flight is finished, for up to `seconds`."""
        self._cancel_tasks()
        self._server.close()
        await asyncio.gather(self._rust.stop(seconds), self._server.drained(seconds))

    def report(self) -> Report:
        """Nothing is counted here: sglang-router has metrics of its own."""
        return Report(usage={}, counters=self._commands.counters, queued={}, connections={}, rates={})

    async def close(self) -> None:
        """Break off what is still in flight."""
        self._cancel_tasks()
        self._server.close()
        self._server.abort()
        await self._rust.stop(0)
        self._commands.close()
        await self._workers.close()

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _keep_running(self) -> None:
        backoff, now = Backoff(), asyncio.get_running_loop().time
        while True:
            began = now()
            how = await self._rust.ended()
            wait_s = backoff.after(now() - began)
            _log.warning("sglang-router %s; it is started again in %.1f s", how, wait_s)
            await asyncio.sleep(wait_s)
            try:
                await self._rust.start()
            except RouterError as error:
                _log.warning("%s", error)
            self._changed.set()

    async def _follow_workers(self) -> None:
        """Keep its workers equal to the view. What it lists itself counts, so one that starts anew gets all again."""
        while True:
            if self._rust.is_listening:
                try:
                    self._note(await self._workers.follow(self._view.workers))
                except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
                    _log.warning("sglang-router does not take its workers: %s", error or type(error).__name__)
            else:
                self._note({})
            try:
                await asyncio.wait_for(self._changed.wait(), _LOOK_S)
            except TimeoutError:
                continue
            self._changed.clear()

    def _note(self, in_flight: dict[int, int]) -> None:
        """Write the requests in flight, by worker's slot, onto the board."""
        for slot in in_flight.keys() | self._in_flight.keys():
            self._row.add(slot, requests=in_flight.get(slot, 0) - self._in_flight.get(slot, 0))
        self._in_flight = in_flight
