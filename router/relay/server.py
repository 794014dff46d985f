"""A relay: decides by the head of a request, then gives it to a worker or to the supervisor's pages."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import msgspec

from ...core.background.rounds import Rounds
from ...core.net.connection_guard import ConnectionLimits, Guard, limits_of_process
from ...core.net.openai import ON_BEHALF_HEADER
from ...core.spec.router import RouterSpec
from ..admission.admission import Admission
from ..batches.limits import MOST_FILE_BYTES
from ..control.board import Board
from ..control.counters import Counters
from ..control.messages import BlamedRequests, FromRelay, LaneLoad, Replaced, Report, Setup, Tenants, View
from ..control.queues import QueuesOnBoard
from ..http.bodies import BodyLimits
from ..http.messages import Body, Head, Reply, Request, Streamed, Whole
from ..http.pool import SocketPool
from ..http.server import Server
from ..policies import policy_named
from ..policies.eligible import Eligibility, Lane, PoolRouting
from ..policies.estimates import Lengths, Rates
from ..responses.store import response_store
from ..tenants.quota import Quotas
from ..tenants.refusal import Refused
from ..tenants.tenant import Tenant
from .access import (
    Keys,
    is_for_admins,
    is_generation,
    is_open,
    is_upload,
    no_key,
    no_such_tenant,
    not_for_tenants,
    origins,
    preflight,
)  # fmt: skip
from .access_log import AccessLog
from .accounts import Accounts
from .answers import health, refused, router_ended
from .forward import Forwarder
from .intake import Intake
from .keep_alive import KeepAlive
from .losses.retry_budget import RetryBudget
from .paths import canonical_target
from .supervisor.pages import Pages
from .supervisor.uploads import Uploads
from .surfaces.responses.kept import KeptResponses
from .surfaces.surfaces import Surfaces
from .workers.connections import connect
from .workers.workers import Workers

# Descriptors for probes, files and libraries; those for requests to workers are counted with their clients'.
_SPARE_DESCRIPTORS = 64
_FORM_BYTES = 256 * 1024  # of an upload, beside the file itself
_ON_BEHALF = ON_BEHALF_HEADER.lower().encode()
_NEWS_S = 0.05
_TICK_S = 0.5
_LAST_WORDS_S = 1.0  # for clients to get what ends their answers


class RelayServer:
    """One relay. Implements the `Handler` of its HTTP server.

    Args:
        setup: what it is.
        board: what the relays know of each other.
        listener: the socket that clients connect to.
        send: sends to the supervisor.
        tls: for clients; None: they speak HTTP.
    """

    def __init__(
        self,
        setup: Setup,
        board: Board,
        listener: socket.socket,
        send: Callable[[FromRelay], None],
        tls: ssl.SSLContext | None,
    ) -> None:
        spec = msgspec.convert(setup.router, RouterSpec)
        self._index, self._board, self._row = setup.index, board, board.row(setup.index)
        self._listener, self._tls, self._tell = listener, tls, send
        self._keys, self._origins, self._quotas = Keys(), origins(spec.allowed_origins), Quotas(board.spent)
        self._policy = policy_named(spec.policy, setup.index)
        self._rates, self._counters = Rates(), Counters()
        self._rounds = Rounds(self._counters.failed_rounds)
        eligibility = Eligibility(msgspec.convert(setup.pools, list[PoolRouting]), spec.rule)
        self._workers = Workers(
            board, self._row, eligibility, overcommit=spec.overcommit, connect=connect, forget=self._forget
        )
        self._admission = Admission(
            self._workers.room,
            queue=-(-spec.queue // setup.relays),
            timeout_s=spec.queue_timeout,
            reserved=spec.reserved,
            neighbours=QueuesOnBoard(board, setup.index) if setup.relays > 1 else None,
        )
        lengths = Lengths()
        log = AccessLog() if spec.access_log else None
        self._accounts = Accounts(
            self._counters, self._row, self._policy, lengths, self._rates, log, within_quota=self._quotas.require_tokens
        )
        after = spec.comment_after
        self._keep_alive = None if after is None else KeepAlive(max(1, round(after / _TICK_S)))
        self._forwarder = Forwarder(
            self._workers,
            self._policy,
            self._admission,
            self._counters,
            eligibility=eligibility,
            intake=Intake(eligibility, lengths),
            accounts=self._accounts,
            tell=send,
            retry_budget=RetryBudget(spec.retry_budget),
            failover=spec.failover,
            hedge_after=spec.hedge_after,
            keep_alive=self._keep_alive,
        )
        self._surfaces = Surfaces(
            spec.translate,
            KeptResponses(response_store(setup.responses, spec), self._counters),
            self._workers.engines,
            forward=self._forwarder.forward,
            refuse=self._forwarder.refuse,
        )
        self._supervisor = SocketPool(Path(setup.control_socket))
        self._pages = Pages(self._supervisor)
        self._uploads = Uploads(Path(setup.control_socket))
        self._guard = Guard(connection_limits(spec, setup.relays))
        self._server = Server(self, self._guard, body_limits(setup.relays), self._rounds)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_started = False

    # What the supervisor says.

    def view(self, view: View) -> None:
        """Take the workers that there are."""
        self._workers.hear(view.workers, view.outlooks)
        self._admission.poke()

    def tenants(self, tenants: Tenants) -> None:
        """Take the tenants that there are."""
        self._keys = Keys(tenants.tenants)
        self._quotas.set_tokens_before(tenants.tokens_today)

    def blamed(self, blamed: BlamedRequests) -> None:
        """Take the requests that workers were lost under."""
        self._forwarder.blamed(blamed)

    async def replaced(self, replaced: Replaced) -> None:
        """Let clients go to another router, or keep them again."""
        self._server.let_go(replaced.is_replaced)
        if replaced.shares_port:
            self._server.stop_accepting()
        elif self._is_started and not self._server.is_accepting:
            await self._accept()

    async def start(self) -> None:
        """Accept clients. Called once, after the first `view` and `tenants`."""
        self._tasks = [asyncio.create_task(self._share_news()), asyncio.create_task(self._look_after_workers())]
        await self._accept()
        self._is_started = True
        self._server.start_clock()

    async def _accept(self) -> None:
        self._listener.setblocking(False)  # a copy would else make it wait
        await self._server.listen(self._listener.dup(), self._tls)

    async def accept_commands(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        """Accept our own commands too. Called once, after `start`."""
        await self._server.listen(listener, tls, private=True)

    async def drain(self, seconds: float) -> None:
        """Accept no more, and wait until what is in flight is finished, for up to `seconds`. Then clients are told."""
        self._stop()
        if not await self._server.drained(seconds):
            self._forwarder.break_off()
            self._admission.refuse_all(router_ended)
            await self._server.drained(_LAST_WORDS_S)

    def _stop(self) -> None:
        self._is_started = False
        self._server.close()
        self._listener.close()

    def report(self) -> Report:
        """All that has been counted."""
        return Report(
            counters=self._counters,
            usage=self._accounts.usage,
            queued=self._admission.waiting(),
            connections=self._guard.counts,
            rates=self._rates.report(),
            served={upstream.slot: upstream.served for upstream in self._workers.all() if upstream.served},
            lanes=self._lanes(),
        )

    def _lanes(self) -> tuple[LaneLoad, ...]:
        """What is asked of workers. Models that nobody serves have no lane, so clients cannot add any."""
        lanes = ((cast(Lane, key), load) for key, load in self._admission.loads().items())
        return tuple(LaneLoad(model=lane[0], pools=lane[1], **load._asdict()) for lane, load in lanes)

    async def close(self) -> None:
        """Break off what is still in flight."""
        self._stop()
        self._server.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._surfaces.close()
        self._forwarder.close()
        self._admission.close()
        self._workers.close()
        self._supervisor.close()

    # What clients send.

    def admit(self, head: Head) -> Whole | None:
        """Refuse a request by its head alone: a wrong key, or too many requests. None: go on."""
        head.target, head.path = canonical_target(head.target)
        head.answer_headers = self._origins.headers(head.fields.get(b"origin"))
        self._surfaces.mark(head)
        if head.method == b"OPTIONS":
            return preflight(self._origins, head)
        tenant = self._keys.tenant(head)
        if tenant is None or (tenant.metrics_only and head.path != "/metrics"):
            if is_open(head):  # the supervisor has other things to do than to tell everybody how it is
                return health(self._workers.counts(), self._workers.outlooks()) if head.path == "/health" else None
            self._counters.count(self._counters.refused, "key")
            return no_key(head, tenant)
        head.tenant = tenant
        if is_generation(head):
            if is_for_admins(head) and not tenant.admin:
                return not_for_tenants(head)
            head.is_generation = True
            return self._admit_generation(head, tenant)
        if is_upload(head):
            head.streamed = Streamed(MOST_FILE_BYTES + _FORM_BYTES, self._upload)
        return None

    def _admit_generation(self, head: Head, tenant: Tenant) -> Whole | None:
        """Whose request it is, and whether it is within that tenant's limits."""
        name = head.fields.get(_ON_BEHALF) if tenant.admin else None
        if name is not None:
            other = self._keys.named(name.decode("latin-1"))
            if other is None:
                return no_such_tenant(name.decode("latin-1"))
            head.tenant = tenant = other
        return self._within_quota(head, tenant)

    def _within_quota(self, head: Head, tenant: Tenant) -> Whole | None:
        """Count a request, or refuse it."""
        full = self._admission.is_full(tenant.name, tenant.weight, tenant.priority)
        standing, answer = self._quotas.standing(tenant), None
        try:
            if full is not None:
                raise full
            if standing is not None:
                standing.require_one_more()
                standing.requests += 1
            self._row.spend(tenant.slot, int(time.time() // 60), requests=1)
        except Refused as refusal:
            self._counters.count(self._counters.refused, refusal.code)
            answer = refused(refusal)
        if standing is not None:
            head.answer_lines = standing.lines()
        return answer

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer a request by a worker or by the supervisor."""
        if request.head.is_generation:
            self._surfaces.enter(request, reply)
        else:
            reply.run(self._pages.answer(request, reply))

    def _upload(self, head: Head, body: Body, reply: Reply) -> None:
        reply.run(self._uploads.answer(head, body, reply))

    # What goes on beside.

    def _forget(self, slot: int) -> None:
        self._policy.forget(slot)
        self._rates.forget(slot)

    async def _share_news(self) -> None:
        """Tell the other relays which worker has got which prompts, and learn it from them."""
        while True:
            await asyncio.sleep(_NEWS_S)
            with self._rounds.guarded("news"):
                self._row.publish(self._policy.news())
                news = self._board.news(self._index)
                if news:
                    self._policy.merge(news)

    async def _look_after_workers(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            with self._rounds.guarded("workers"):
                self._workers.learn(self._rates)
                for doubt in self._workers.tick():
                    self._tell(doubt)
            if self._keep_alive is not None:
                with self._rounds.guarded("keep-alive"):
                    self._keep_alive.tick()
            with self._rounds.guarded("queue"):
                self._admission.poke()
                self._admission.refuse_where(lambda lane: not self._forwarder.has_hope(cast(Lane, lane)))


def body_limits(relays: int) -> BodyLimits:
    """How much of requests' bodies one of so many relays may hold."""
    limits = BodyLimits()
    return replace(limits, together=max(limits.each, limits.together // relays))


def connection_limits(spec: RouterSpec, relays: int) -> ConnectionLimits:
    """How many connections the clients of one relay may have: each may need another one to a worker.

    Each relay has descriptors of its own; the strangers that the spec allows are divided among them.
    """
    limits = limits_of_process(spare=_SPARE_DESCRIPTORS, descriptors_each=2)
    pending = spec.pending_connections
    return limits if pending is None else replace(limits, strangers_per_source=-(-pending // relays))
