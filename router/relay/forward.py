"""The life of a generation request: admission, a worker, perhaps another one, and what the client gets of it.

Nothing is tried at the same worker twice. A worker that is lost before a byte has come costs the request an attempt of
the retry budget. A request under which two workers were lost before their first byte gets no third
(lost_workers.py). After the first byte another worker goes on where the stream stopped (stream/resume.py), or the
stream ends with an error event: never silently.
"""

import time
from collections.abc import Callable, Sequence
from typing import cast

from ..admission.admission import Admission
from ..control.counters import Counters
from ..control.messages import FromRelay
from ..http.heads import request_head
from ..http.messages import Reply, Request, Whole
from ..policies.eligible import Eligibility, Lane
from ..policies.policy import Policy, Route, Worker
from ..tenants.refusal import Refused
from .accounts import Accounts
from .answers import failure, no_worker, refused
from .attempt import Attempt
from .call import Call, RefusedError
from .hedging import Hedging, Sending
from .intake import Intake
from .outcome import BROKEN, Next, Outcomes, broke_off
from .outlet import Outlet
from .retry_budget import RetryBudget
from .stream.resume import Finished, Impossible, plan, prepare
from .upstream import Upstream
from .workers import HOPE_S, Workers


class Forwarder:
    """Sends requests to workers and their answers back."""

    def __init__(
        self,
        workers: Workers,
        policy: Policy,
        admission: Admission,
        counters: Counters,
        *,
        eligibility: Eligibility,
        intake: Intake,
        accounts: Accounts,
        tell: Callable[[FromRelay], None],
        retry_budget: RetryBudget,
        failover: bool,
        hedge_after: float | None,
    ) -> None:
        self._workers, self._policy, self._admission, self._counters = workers, policy, admission, counters
        self._eligibility, self._intake, self._accounts = eligibility, intake, accounts
        self._budget, self._failover = retry_budget, failover
        self._outcomes = Outcomes(
            workers, counters, accounts,
            tell=tell, budget=retry_budget, failover=failover, has_others=lambda call: bool(self._untried(call)),
        )  # fmt: skip
        self._hedging = None if hedge_after is None else Hedging(hedge_after, counters, self._outcomes.report)
        self._turn = 0

    async def forward(self, request: Request, reply: Reply) -> None:
        """Answer a request. Cancelling ends it at its worker."""
        began = time.monotonic()
        outlet, call = Outlet(reply, self._counters.itl), None
        self._budget.request()
        try:
            self._outcomes.require_allowed(request.body)
            call = self._intake.call(request, outlet, self)
            await self._go(call)
        except RefusedError as refusal:
            outlet.fail(refusal.answer)
        except Refused as refusal:
            self._counters.count(self._counters.refused, refusal.code)
            outlet.fail(self._refused(refusal, call))
        finally:
            self._accounts.ended(request.head, call, outlet, began)

    def _refused(self, refusal: Refused, call: Call | None) -> Whole:
        if call is not None and refusal.code == "queue_timeout" and not self._eligibility.ready(call.lane):
            return self._nobody(call)
        return refused(refusal)

    def close(self) -> None:
        """Ask workers for their health no more."""
        self._outcomes.close()

    async def _go(self, call: Call) -> None:
        """Let the request in and try workers, as often as that is needed."""
        admission, ticket = self._admission, call.ticket
        ticket.on_preempt = call.preempt
        try:
            while True:
                if not admission.try_enter(ticket):
                    if not self.has_hope(call.lane):
                        raise RefusedError(self._nobody(call))
                    await admission.enter(ticket)
                next_ = await self._attempts(call)
                while next_ is Next.QUEUE:
                    call.is_preempted = False
                    await admission.enter(ticket)
                    next_ = await self._attempts(call)
                if next_ is Next.DONE:
                    return
                admission.step_out(ticket)
                await self._wait(call)
        finally:
            admission.leave(ticket)
            ticket.on_preempt = None  # with it the two would keep each other until a garbage collection

    async def _attempts(self, call: Call) -> Next:
        """Try one worker after the other until there is an answer or nothing more to try."""
        while not call.is_preempted:
            route = self._choose(call)
            if route is None:
                return Next.WAIT if call.spare is None else self._outcomes.pass_on(call, call.spare)
            body = self._body(call, cast(Upstream, route.worker).engine)
            if body is None:
                return Next.DONE
            next_ = await self._outcomes.settle(call, await self._attempt(call, route, body))
            if next_ is not Next.AGAIN:
                return next_
        return Next.QUEUE

    # The choice of a worker.

    def _untried(self, call: Call) -> Sequence[Worker]:
        return self._eligibility.candidates(call.routed, time.time(), call.tried).workers

    def _choose(self, call: Call) -> Route | None:
        workers = self._untried(call)
        return self._policy.choose(call.routed, workers) if workers else None

    def has_hope(self, lane: Lane) -> bool:
        """Whether there is a worker for requests of a lane, or may be one soon."""
        return bool(self._eligibility.ready(lane)) or self._workers.may_come(lane)

    async def _wait(self, call: Call) -> None:
        """Wait for a worker that was not tried. Raises RefusedError where there will be none."""
        until = min(call.ticket.deadline or 0.0, time.monotonic() + HOPE_S)
        while not self._untried(call):
            if time.monotonic() > until or not self._workers.may_come(call.lane, call.tried):
                raise RefusedError(self._nobody(call))
            await self._workers.change()

    def _nobody(self, call: Call) -> Whole:
        if call.fault is not None and (call.outlet.began or call.fault.kind in BROKEN):
            return broke_off(call.fault)
        return no_worker(self._workers.counts(), call.lane[0])

    # What is sent, and what goes on.

    def _body(self, call: Call, engine: str) -> bytes | None:
        """The request for the next worker, which goes on with a stream that was cut; None: that one was complete.

        Raises RefusedError where no worker can go on.
        """
        outlet = call.outlet
        if not outlet.began:
            return prepare(call.body, call.envelope, engine)
        planned = plan(call.envelope, call.body, outlet.transcript, engine)
        if isinstance(planned, Impossible):
            raise RefusedError(failure(502, f"the stream broke off: {planned.reason}", code="answer_broke_off"))
        if isinstance(planned, Finished):
            outlet.end(planned.events)
            return None
        outlet.stitcher = planned.stitcher
        return planned.body

    def may_move(self, call: Call) -> bool:
        """Whether the request could go on at another worker, so that it may be taken from the one that has it."""
        workers, outlet = self._untried(call), call.outlet
        if not workers or not outlet.began:
            return bool(workers)
        if not self._failover or not outlet.is_events:
            return False
        engine = cast(Upstream, workers[0]).engine
        return not isinstance(plan(call.envelope, call.body, outlet.transcript, engine), Impossible)

    # One attempt, or two at once.

    async def _attempt(self, call: Call, route: Route, body: bytes) -> Attempt:
        first, sending = self._send(call, route, body)
        try:
            if self._hedging is not None and call.envelope.streams and not call.outlet.began:
                return await self._hedging.run(call, (first, sending), self._hedge)
            await sending
            return first
        finally:
            for attempt in call.attempts:
                attempt.leave()
            call.attempts.clear()

    def _hedge(self, call: Call) -> Sending | None:
        """Another attempt beside the one that runs, if there may be one."""
        route = self._choose(call)
        if route is None or not self._budget.spend():
            return None
        return self._send(call, route, prepare(call.body, call.envelope, cast(Upstream, route.worker).engine))

    def _send(self, call: Call, route: Route, body: bytes) -> Sending:
        """A new attempt, which counts from now on, and what sends its request."""
        attempt = self._start(call, route)
        return attempt, attempt.run(self._head(call, attempt.upstream, body), body)

    def _start(self, call: Call, route: Route) -> Attempt:
        """A new attempt, which counts from now on."""
        upstream = cast(Upstream, route.worker)
        self._turn += 1
        upstream.turn = self._turn
        call.tried.add(upstream.slot)
        call.route = route
        self._policy.sent(call.routed, upstream)
        self._accounts.sent(call, route)
        attempt = Attempt(upstream, call.outlet, max(0, call.routed.input_tokens - route.cached_tokens), call)
        call.attempts.append(attempt)
        return attempt

    def _head(self, call: Call, upstream: Upstream, body: bytes) -> bytes:
        head = call.request.head
        return request_head(
            head.method, head.target, head.headers, key=upstream.key, body_length=len(body), request_id=head.id
        )

    def first_byte(self, call: Call, attempt: Attempt) -> None:
        """Note that a worker has begun to answer."""
        self._admission.began(call.ticket)
        self._accounts.first_byte(call, attempt)
