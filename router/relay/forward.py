"""The life of a generation request: admission, a worker, perhaps another one, and what the client gets of it.

Nothing is tried at the same worker twice. A worker that is lost before a byte has come costs the request an attempt of
the retry budget. A request that seems to take its workers down gets no other one (blame.py). After the first byte
another worker goes on where the stream stopped (stream/resume.py), or the stream ends with an error event: never
silently.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

from ..admission.admission import Admission
from ..control.counters import Counters
from ..control.messages import BlamedRequests, FromRelay
from ..http.heads import request_head
from ..http.messages import Reply, Request, Whole
from ..policies.eligible import Eligibility, Lane
from ..policies.policy import Policy, Route, Worker
from ..tenants.refusal import Refused
from .accounts import Accounts
from .answers import failure, no_worker, refused, router_ended
from .attempt import Attempt
from .call import Call, RefusedError
from .hedging import Hedging, Sending
from .intake import Intake
from .keep_alive import KeepAlive
from .losses.retry_budget import RetryBudget
from .outcome import BROKEN, Next, Outcomes, broke_off
from .outlet import Outlet
from .stream.resume import Finished, Impossible, plan, prepare
from .workers.upstream import Upstream
from .workers.workers import HOPE_S, Workers

Step = Callable[[], Coroutine[Any, Any, Next]]


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
        keep_alive: KeepAlive | None = None,
    ) -> None:
        self._workers, self._policy, self._admission, self._counters = workers, policy, admission, counters
        self._eligibility, self._intake, self._accounts = eligibility, intake, accounts
        self._budget, self._failover = retry_budget, failover
        self._outcomes = Outcomes(
            workers, counters, accounts,
            tell=tell, budget=retry_budget, failover=failover, has_others=lambda call: bool(self._untried(call)),
        )  # fmt: skip
        self._hedging = None if hedge_after is None else Hedging(hedge_after, counters, self._outcomes.report)
        self._keep_alive = keep_alive
        self._turn = 0
        self._going_on = asyncio.Lock()

    def forward(self, request: Request, reply: Reply) -> None:
        """Answer a request. Where nothing has to be waited for but a worker, that takes no task."""
        began = time.monotonic()
        outlet = Outlet(reply, self._counters.itl)
        self._budget.request()
        try:
            blame = self._outcomes.allowed(request)
            call = self._intake.call(request, reply, outlet, self, began)
        except RefusedError as refusal:
            outlet.fail(refusal.answer)
            self._accounts.ended(request.head, None, outlet, began)
            return
        call.ticket.on_preempt, call.blame = call.preempt, blame
        if self._keep_alive is not None:
            self._keep_alive.put(call)
        try:
            self._accounts.began(call)
            self._begin(call)
        except Refused as refusal:
            self._refuse(call, refusal)
            self._end(call)
        except BaseException:
            self._end(call)
            raise

    def refuse(self, request: Request, reply: Reply, answer: Whole) -> None:
        """Answer a request that goes to no worker, and count it."""
        outlet = Outlet(reply, self._counters.itl)
        outlet.fail(answer)
        self._accounts.ended(request.head, None, outlet, time.monotonic())

    def blamed(self, blamed: BlamedRequests) -> None:
        """Take what all relays hold against requests."""
        self._outcomes.blamed(blamed)

    def break_off(self) -> None:
        """End what is in flight with an error that says that the router ends."""
        for attempt in cast(list[Attempt], self._workers.in_flight()):
            call = cast(Call, attempt.owner)
            on_lost = call.reply.on_lost
            call.outlet.fail(refused(router_ended()))
            if on_lost is not None:
                on_lost()

    def close(self) -> None:
        """Ask workers for their health no more."""
        self._outcomes.close()

    def has_hope(self, lane: Lane) -> bool:
        """Whether there is a worker for requests of a lane, or may be one soon."""
        return bool(self._eligibility.ready(lane)) or self._workers.may_come(lane)

    def _begin(self, call: Call) -> None:
        """Send a request to a worker; by a task, where there is no slot or no connection yet."""
        if not self._admission.try_enter(call.ticket):
            self._run(call, lambda: self._enter(call))
            return
        route = self._choose(call)
        if route is None:
            self._run(call, lambda: self._attempts(call))
            return
        upstream = cast(Upstream, route.worker)
        body = prepare(call.body, call.envelope, upstream.engine)
        attempt = self._start(call, route)
        head = self._head(call, upstream, body)
        takes_task = call.blame is not None or self._hedging_of(call) is not None
        if not takes_task and attempt.try_send(head, body, partial(self._attempt_over, call)):
            call.reply.on_lost = partial(self._end, call)
        else:
            self._run(call, lambda: self._wait_for(call, attempt, attempt.run(head, body)))

    def _attempt_over(self, call: Call, attempt: Attempt) -> None:
        """Note a good answer; anything else needs a task."""
        attempt.abandon()
        call.attempts.clear()
        next_ = self._outcomes.rejected
        try:
            if self._outcomes.accept(call, attempt):
                self._end(call)
                return
        except Exception:  # a defect, which `settle` meets again, in a task that logs it
            next_ = self._outcomes.settle
        self._run(call, lambda: next_(call, attempt))

    def _end(self, call: Call) -> None:
        """Nothing more is done for a request. Called once or more."""
        if not call.is_over:
            call.is_over = True
            if self._keep_alive is not None:
                self._keep_alive.drop(call)
            for attempt in call.attempts:
                attempt.abandon()
            call.attempts.clear()
            self._admission.leave(call.ticket)
            if call.blame is not None:
                self._end_trial(call)
                self._outcomes.ended(call, call.blame)
            call.ticket.on_preempt = None  # with it the two would keep each other until a garbage collection
            self._accounts.ended(call.request.head, call, call.outlet, call.began)

    # Requests that have to wait.

    def _run(self, call: Call, first: Step) -> None:
        call.reply.run(self._go(call, first), lambda: self._end(call))

    async def _go(self, call: Call, first: Step) -> None:
        """Take a first step, and all that follow. Cancelling ends the request at its worker."""
        try:
            await self._steps(call, await first())
        except RefusedError as refusal:
            call.outlet.fail(refusal.answer)
        except Refused as refusal:
            self._refuse(call, refusal)
        finally:
            self._end(call)

    async def _steps(self, call: Call, next_: Next) -> None:
        """Try workers, as often as that is needed."""
        admission, ticket = self._admission, call.ticket
        while next_ is not Next.DONE:
            if next_ is Next.AGAIN:
                next_ = await self._attempts(call)
            elif next_ is Next.QUEUE:
                call.is_preempted = False
                await admission.enter(ticket)
                next_ = Next.AGAIN
            else:
                admission.step_out(ticket)
                with admission.aside(ticket):
                    await self._wait(call)
                next_ = Next.AGAIN if admission.try_enter(ticket) else await self._enter(call)

    async def _enter(self, call: Call) -> Next:
        """Wait for a slot."""
        if not self.has_hope(call.lane):
            raise RefusedError(self._nobody(call))
        await self._admission.enter(call.ticket)
        return Next.AGAIN

    async def _attempts(self, call: Call) -> Next:
        """Try one worker after the other until there is an answer or nothing more to try."""
        while not call.is_preempted:
            if call.blame is not None:
                self._outcomes.recall(call.blame)
            async with self._turn_of(call):
                route = self._choose(call)
                if route is None:
                    if call.spare is None or call.outlet.has_told:
                        return Next.WAIT
                    return self._outcomes.pass_on(call, call.spare)
                body = self._body(call, cast(Upstream, route.worker).engine)
                if body is None:
                    return Next.DONE
                sending = self._send(call, route, body)
            next_ = await self._wait_for(call, *sending)
            if next_ is not Next.AGAIN:
                return next_
        return Next.QUEUE

    @asynccontextmanager
    async def _turn_of(self, call: Call) -> AsyncIterator[None]:
        """Streams go on elsewhere one by one: each is read first, and others are to go on between two of them."""
        if not call.outlet.began:
            yield
            return
        async with self._going_on:
            await asyncio.sleep(0)
            yield

    def _refuse(self, call: Call, refusal: Refused) -> None:
        self._counters.count(self._counters.refused, refusal.code)
        is_hopeless = refusal.code == "queue_timeout" and not self._eligibility.ready(call.lane)
        call.outlet.fail(self._nobody(call) if is_hopeless else refused(refusal))

    # The choice of a worker.

    def _untried(self, call: Call) -> Sequence[Worker]:
        workers = self._candidates(call)
        return workers if call.blame is None else call.blame.allowed(cast(Sequence[Upstream], workers))

    def _candidates(self, call: Call) -> Sequence[Worker]:
        return self._eligibility.candidates(call.routed, time.time(), call.tried).workers

    def _choose(self, call: Call) -> Route | None:
        workers = self._untried(call)
        return self._policy.choose(call.routed, workers) if workers else None

    async def _wait(self, call: Call) -> None:
        """Wait for a worker that was not tried. Raises RefusedError where there will be none."""
        hope_ends = time.monotonic() + HOPE_S
        while not self._untried(call):
            is_held = call.blame is not None and bool(self._candidates(call))  # by others of its kind
            if not is_held and not self._may_wait(call, hope_ends):
                raise RefusedError(self._nobody(call))
            await self._workers.change()

    def _may_wait(self, call: Call, hope_ends: float) -> bool:
        until = call.ticket.deadline or 0.0
        if not self._workers.is_promised(call.lane):
            until = min(until, hope_ends)
        return time.monotonic() <= until and self._workers.may_come(call.lane, call.tried)

    def _nobody(self, call: Call) -> Whole:
        if call.fault is not None and (call.outlet.has_told or call.fault.kind in BROKEN):
            return broke_off(call.fault)
        return no_worker(self._workers.counts(), call.lane[0], self._workers.outlooks_of(call.lane))

    # What is sent.

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

    # One attempt, or two at once.

    async def _wait_for(self, call: Call, attempt: Attempt, sending: Coroutine[Any, Any, None]) -> Next:
        """Send a request, and settle what has come of it."""
        try:
            hedging = self._hedging_of(call)
            if hedging is not None:
                attempt = await hedging.run(call, (attempt, sending), self._hedge)
            else:
                await sending
        finally:
            for each in call.attempts:
                each.leave()
            call.attempts.clear()
            self._end_trial(call)
        return await self._outcomes.settle(call, attempt)

    def _hedging_of(self, call: Call) -> Hedging | None:
        """What starts a second attempt beside a slow one; None where the request may have one at a time only."""
        return self._hedging if call.envelope.streams and not call.outlet.began and call.blame is None else None

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
        if call.blame is not None:
            call.blame.enter(upstream)
        return attempt

    def _end_trial(self, call: Call, *, has_begun: bool = False) -> None:
        if call.blame is not None and call.blame.leave(has_begun=has_begun):
            self._workers.poke()  # others may wait for this worker

    def _head(self, call: Call, upstream: Upstream, body: bytes) -> bytes:
        head = call.request.head
        # Of all engines these paths are at the root.
        target = head.target if call.envelope.computes else head.target.removeprefix(b"/v1")
        return request_head(
            head.method, target, head.headers, key=upstream.key, body_length=len(body), request_id=head.id
        )

    # What attempts ask and tell.

    def may_move(self, call: Call) -> bool:
        """Whether the request could go on at another worker, so that it may be taken from the one that has it."""
        workers, outlet = self._untried(call), call.outlet
        if not workers or not outlet.has_told:
            return bool(workers)
        if not self._failover or not outlet.is_events:
            return False
        engine = cast(Upstream, workers[0]).engine
        return not isinstance(plan(call.envelope, call.body, outlet.transcript, engine), Impossible)

    def first_byte(self, call: Call, attempt: Attempt) -> None:
        """Note that a worker has begun to answer."""
        self._admission.began(call.ticket)
        if attempt.status < 400:
            self._admission.computes(call.ticket)
        self._accounts.first_byte(call, attempt)
        self._end_trial(call, has_begun=True)
