"""The port for our own commands: generation requests go on to sglang-router, all others to the supervisor's pages."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from ..control.counters import Counters
from ..http.heads import request_head
from ..http.messages import ConnectError, Head, Reply, Request, Whole
from ..http.pool import SocketPool, WorkerPool
from ..http.upstream import Upstream
from ..relay.access import Keys, is_generation, no_key
from ..relay.supervisor.pages import Pages, pass_on
from ..tenants.tenant import Tenant
from .peers import is_own_server

_IDLE_S = 60.0


class Commands:
    """Implements `Handler` of router/http/messages.py.

    Args:
        control_socket: of the supervisor's pages.
        address, port: where sglang-router listens.
        key: that it asks for.
    """

    def __init__(self, control_socket: Path, address: str, port: int, key: str) -> None:
        self._supervisor = SocketPool(control_socket)
        self._pages = Pages(self._supervisor)
        self._rust = OwnTcpPool(address, port)
        self._host, self._key = f"{address}:{port}".encode(), key
        self._keys = Keys()
        self.counters = Counters()

    def tenants(self, tenants: Iterable[Tenant]) -> None:
        """Take the keys that there are."""
        self._keys = Keys(tenants)

    def close(self) -> None:
        """Close the idle connections, and the others as they become idle."""
        self._supervisor.close()
        self._rust.close()

    def admit(self, head: Head) -> Whole | None:
        """Refuse a request without a key, or with a wrong one."""
        tenant = head.tenant = self._keys.tenant(head)
        if tenant is None or (tenant.metrics_only and head.path != "/metrics"):
            head.tenant = None
            self.counters.count(self.counters.refused, "key")
            return no_key(head, tenant)
        return None

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer a request by sglang-router or by the supervisor."""
        if not is_generation(request.head):
            reply.run(self._pages.answer(request, reply))
            return
        head = request.head
        lines = request_head(
            head.method, head.target, head.headers, host=self._host, key=self._key,
            body_length=len(request.body), request_id=head.id,
        )  # fmt: skip
        reply.run(pass_on(self._rust, lines, request.body, reply, "sglang-router"))


class OwnTcpPool(WorkerPool):
    """Connections to a TCP port of this machine, where a process of this user must listen."""

    def __init__(self, address: str, port: int) -> None:
        super().__init__(_IDLE_S)
        self._address = (address, port)

    async def _connect(self) -> Upstream:
        transport, made = await asyncio.get_running_loop().create_connection(lambda: Upstream(self), *self._address)
        if not is_own_server(transport.get_extra_info("socket")):
            transport.abort()
            raise ConnectError("another user listens on the port of sglang-router")
        return made
