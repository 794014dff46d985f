"""The life of a generation request: admission, a worker, perhaps another one, and what the client gets of it.

Nothing is tried at the same worker twice. A worker that is lost before a byte has come costs the request an attempt of
the retry budget. A request under which two workers were lost before their first byte gets no third
(lost_workers.py). After the first byte another worker goes on where the stream stopped (resume.py), or the stream ends
with an error event: never silently.
"""

import asyncio
import enum
import logging
import time
from collections.abc import Callable

import msgspec

from ..admission.admission import Admission
from ..control.counters import Counters
from ..http.heads import request_head
from ..http.messages import Reply, Request, Whole
from ..policies.policy import Policy, Route
from ..tenants.refusal import Refused
from .answers import failure, no_such_path, no_worker, workers_lost
from .attempt import Attempt, Fault
from .call import Call, RefusedError
from .health import Health
from .lost_workers import MAX_WORKERS_LOST, LostWorkers
from .outlet import Outlet
from .retry_budget import RetryBudget
from .upstream import Upstream
from .usage import tokens_in
from .workers import Workers

# A worker that is lost in mid-answer says less of the request than one that is lost before: so many count as one.
_STREAM_LOSS = 0.25
_CLIENT_CLOSED_REQUEST = 499  # nginx's number for a client that hung up

_log = logging.getLogger(__name__)


class _Next(enum.Enum):
    """What becomes of a request after an attempt."""

    DONE = enum.auto()
    AGAIN = enum.auto()  # another worker
    WAIT = enum.auto()  # until there is another worker
    QUEUE = enum.auto()  # it has given way


class Forwarder:
    """Sends requests to workers and their answers back."""

    def __init__(
        self,
        workers: Workers,
        policy: Policy,
        admission: Admission,
        counters: Counters,
        *,
        intake: Callable[[Request, Outlet], Call],
        report: Callable[[Upstream, Fault], None],
        answered: Callable[[Call, Attempt], None],
        retry_budget: RetryBudget,
        failover: bool,
        hedge_after: float | None,
        wait_s: float,
    ) -> None:
        self._workers, self._policy, self._admission, self._counters = workers, policy, admission, counters
        self._intake, self._report_fault, self._answered = intake, report, answered
        self._budget, self._failover, self._hedge_after, self._wait_s = retry_budget, failover, hedge_after, wait_s
        self._lost_workers = LostWorkers()
        self._health = Health()
        self._turn = 0

    async def forward(self, request: Request, reply: Reply) -> None:
        """Answer a request. Cancelling ends it at its worker."""
        began = time.monotonic()
        outlet = Outlet(reply, self._counters.itl)
        self._budget.request()
        try:
            if self._lost_workers.is_barred(request.body):
                raise RefusedError(workers_lost("that was when it was sent before"))
            await self._go(self._intake(request, outlet))
        except RefusedError as refusal:
            outlet.fail(refusal.answer)
        except Refused as refusal:
            self._counters.count(self._counters.refused, refusal.code)
            outlet.fail(
                failure(refusal.status, refusal.message, code=refusal.code, retry_after=refusal.retry_after)
            )
        finally:
            status = outlet.status if outlet.is_over else _CLIENT_CLOSED_REQUEST
            endpoint = request.head.path
            self._counters.count(self._counters.requests, (endpoint, status))
            self._counters.time(self._counters.duration, endpoint, time.monotonic() - began)

    async def _go(self, call: Call) -> None:
        """Let the request in and try workers, as often as that is needed."""
        admission, ticket = self._admission, call.ticket
        ticket.on_preempt = call.preempt
        try:
            while True:
                if not admission.try_enter(ticket):
                    self._require_hope(call)
                    await admission.enter(ticket)
                self._counters.time(self._counters.queue_time, ticket.priority.name.lower(), time.monotonic() - call.began)
                next_ = await self._attempts(call)
                while next_ is _Next.QUEUE:
                    call.is_preempted = False
                    await admission.enter(ticket)
                    next_ = await self._attempts(call)
                if next_ is _Next.DONE:
                    return
                admission.leave(ticket)
                await self._wait(call)
        finally:
            admission.leave(ticket)
