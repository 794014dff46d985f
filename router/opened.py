"""What a router opens before it serves: its sockets, its certificate, the board."""

import logging
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from ..core.errors import RunDirectoryError, SlurminferError
from ..core.net.address import node_address
from ..core.records import RouterRecord
from ..core.rundir import RunDirectory
from ..core.slurm_env import recorded_job
from ..core.spec.deployment import DeploymentSpec
from ..core.spec.router import RouterSpec
from .certificate import Certificate, read_certificate
from .control.board import Board
from .control.listeners import PortTakenError, hold, open_listeners
from .control.messages import Setup
from .control.passing import take
from .policies.eligible import PoolRouting
from .responses.store import ResponseStore, response_store
from .sglang.installed import require_installed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """What a router needs before it can serve; closed with the `with`."""

    run: RunDirectory
    spec: DeploymentSpec
    address: str
    certificate: Certificate | None
    listeners: list[socket.socket]
    private_listeners: list[socket.socket]
    board: Board

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *error: object) -> None:
        for sock in (*self.listeners, *self.private_listeners):
            sock.close()
        self.board.close()

    @cached_property
    def url(self) -> str:
        """The endpoint's address for clients."""
        scheme = "http" if self.certificate is None else "https"
        return "{}://{}:{}".format(scheme, *self.listeners[0].getsockname())

    @cached_property
    def responses(self) -> ResponseStore | None:
        """Where responses are kept; None: nowhere."""
        return response_store(self.run.responses_path, self.spec.router)

    @property
    def count(self) -> int:
        """How many relays there are."""
        return len(self.listeners)

    def certificate_pem(self) -> str | None:
        """The certificate for clients as it is now. Blocks on the filesystem; raises SlurminferError."""
        found = read_certificate(self.run, self.spec.router, _hosts(self.address))
        return None if found is None else found.pem


async def open_router(run: RunDirectory, spec: DeploymentSpec, predecessor: RouterRecord | None) -> Opened:
    """What a router needs before it serves.

    Args:
        run: of the deployment.
        spec: of the deployment.
        predecessor: a router that lives, from which this one takes over.

    Raises SlurminferError.
    """
    address, router = node_address(), spec.router
    certificate = read_certificate(run, router, _hosts(address))
    listeners = await _client_sockets(router, address, predecessor, _port_before(run))
    try:
        private_listeners = await open_listeners(address, 0, len(listeners))
        board = Board.create(len(listeners))
    except SlurminferError:
        for listener in listeners:
            listener.close()
        raise
    return Opened(run, spec, address, certificate, listeners, private_listeners, board)


def _port_before(run: RunDirectory) -> int:
    """The port of a router of the same job that was killed; 0 if there was none."""
    with suppress(RunDirectoryError):
        record = run.read_router()
        if record is not None and record.url and (record.host, record.job) == (socket.gethostname(), recorded_job()):
            return urlsplit(record.url).port or 0
    return 0


async def _client_sockets(
    router: RouterSpec, address: str, predecessor: RouterRecord | None, port_before: int
) -> list[socket.socket]:
    """The endpoint's port, once for each relay; only held where another program is to listen.

    Those of a predecessor on the same node, if it gives them. Else, with a predecessor, any free port if the one of the
    spec is taken: its address is another one anyway. Where the spec leaves the port open, `port_before` if that is
    still free, since clients know it. Raises RouterError.
    """
    if router.backend == "sglang":
        await require_installed(router.python)
    elif predecessor is not None and predecessor.listeners and predecessor.host == socket.gethostname():
        taken = await take(predecessor.listeners, address, _count(router))
        if taken:
            return taken
    port = router.port or (port_before if predecessor is None else 0)
    try:
        return await _sockets_at(port, router, address)
    except PortTakenError as error:
        if predecessor is None and router.port:
            raise
        _log.info("%s; another port is taken", error)
        return await _sockets_at(0, router, address)


async def _sockets_at(port: int, router: RouterSpec, address: str) -> list[socket.socket]:
    if router.backend == "sglang":
        return [await hold(address, port)]
    return await open_listeners(address, port, _count(router))


def _count(router: RouterSpec) -> int:
    """How many relays there are."""
    return router.relays or router.cpus_per_task


def _hosts(address: str) -> list[str]:
    """By which clients reach this router."""
    return list(dict.fromkeys([socket.gethostname(), address, "localhost", "127.0.0.1"]))


def setups(spec: DeploymentSpec, key: str, count: int, control_socket: Path, responses: Path) -> list[Setup]:
    """What each of `count` relays is told first."""
    router = msgspec.to_builtins(spec.router)
    pools = [
        PoolRouting(name=pool.name, model=spec.model_of(pool).served_name, spill_after=spec.spill_after_of(pool))
        for pool in spec.pool
    ]
    return [
        Setup(
            index=index,
            relays=count,
            router=router,
            pools=msgspec.to_builtins(pools),
            control_socket=str(control_socket),
            responses=str(responses),
            key=key if spec.router.backend == "sglang" else "",
        )
        for index in range(count)
    ]
