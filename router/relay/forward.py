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
from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from ..admission.admission import Admission
from ..control.counters import Counters
from ..control.messages import FromRelay, Suspect
from ..http.heads import request_head
from ..http.messages import Reply, Request, Whole
from ..policies.eligible import Eligibility
from ..policies.policy import Policy, Route, Worker
from ..tenants.refusal import Refused
from .accounts import Accounts
from .answers import RETRY_AFTER_S, failure, no_such_path, no_worker, workers_lost
from .attempt import Attempt, Fault, value_of
from .call import Call, RefusedError
from .health import Health
from .intake import Intake
from .lost_workers import MAX_WORKERS_LOST, LostWorkers
from .outlet import Outlet
from .resume import Finished, Impossible, plan, prepare
from .retry_budget import RetryBudget
from .upstream import Upstream
from .usage import Tokens, tokens_from, tokens_in
from .workers import Workers

# A worker that is lost in mid-answer says less of the request than one that is lost before: so many count as one.
_STREAM_LOSS = 0.25
# Kinds of faults that make a worker suspect, and those after which another attempt costs engines work again.
_SUSPICIOUS = frozenset({"connect", "lost", "body", "garbage", "stream", "error"})
_COSTLY = frozenset({"lost", "body", "garbage", "stream", "error"})
_BROKEN = frozenset({"body", "garbage", "stream"})

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
        eligibility: Eligibility,
        intake: Intake,
        accounts: Accounts,
        tell: Callable[[FromRelay], None],
        retry_budget: RetryBudget,
        failover: bool,
        hedge_after: float | None,
        wait_s: float,
    ) -> None:
        self._workers, self._policy, self._admission, self._counters = workers, policy, admission, counters
        self._eligibility, self._intake, self._accounts, self._tell = eligibility, intake, accounts, tell
        self._budget, self._failover, self._hedge_after, self._wait_s = retry_budget, failover, hedge_after, wait_s
        self._lost_workers = LostWorkers()
        self._health = Health()
        self._turn = 0

    async def forward(self, request: Request, reply: Reply) -> None:
        """Answer a request. Cancelling ends it at its worker."""
        began = time.monotonic()
        outlet, call = Outlet(reply, self._counters.itl), None
        self._budget.request()
        try:
            if self._lost_workers.is_barred(request.body):
                raise RefusedError(workers_lost("that was when it was sent before"))
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
        return failure(refusal.status, refusal.message, code=refusal.code, retry_after=refusal.retry_after)

    def close(self) -> None:
        """Ask workers for their health no more."""
        self._health.close()

    async def _go(self, call: Call) -> None:
        """Let the request in and try workers, as often as that is needed."""
        admission, ticket = self._admission, call.ticket
        ticket.on_preempt = call.preempt
        try:
            while True:
                if not admission.try_enter(ticket):
                    self._require_hope(call)
                    await admission.enter(ticket)
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
            ticket.on_preempt = None  # with it the two would keep each other until a garbage collection

    async def _attempts(self, call: Call) -> _Next:
        """Try one worker after the other until there is an answer or nothing more to try."""
        while not call.is_preempted:
            route = self._choose(call)
            if route is None:
                return _Next.WAIT if call.busy is None else self._pass_on(call, call.busy)
            body = self._body(call, cast(Upstream, route.worker).engine)
            if body is None:
                return _Next.DONE
            next_ = await self._settle(call, await self._attempt(call, route, body))
            if next_ is not _Next.AGAIN:
                return next_
        return _Next.QUEUE

    # The choice of a worker.

    def _untried(self, call: Call) -> Sequence[Worker]:
        return self._eligibility.candidates(call.routed, time.time(), call.tried).workers

    def _choose(self, call: Call) -> Route | None:
        workers = self._untried(call)
        return self._policy.choose(call.routed, workers) if workers else None

    def _require_hope(self, call: Call) -> None:
        """Raise RefusedError where no worker can be waited for."""
        if not self._eligibility.ready(call.lane) and not self._workers.may_come(call.lane, call.tried):
            raise RefusedError(self._nobody(call))

    async def _wait(self, call: Call) -> None:
        """Wait for a worker that was not tried. Raises RefusedError where there will be none."""
        until = time.monotonic() + self._wait_s
        while not self._untried(call):
            if time.monotonic() > until or not self._workers.may_come(call.lane, call.tried):
                raise RefusedError(self._nobody(call))
            await self._workers.change()

    def _nobody(self, call: Call) -> Whole:
        if call.fault is not None and (call.outlet.began or call.fault.kind in _BROKEN):
            return _broke_off(call.fault)
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
        first = self._start(call, route)
        try:
            if self._hedge_after is not None and call.envelope.streams and not call.outlet.began:
                return await self._hedged(call, first, body, self._hedge_after)
            await first.run(self._head(call, first.upstream, body), body)
            return first
        finally:
            for attempt in call.attempts:
                attempt.leave()
            call.attempts.clear()

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

    async def _hedged(self, call: Call, first: Attempt, body: bytes, after_s: float) -> Attempt:
        """Ask a second worker if the first one has sent no token in time. The attempt that counts."""
        running = [asyncio.create_task(first.run(self._head(call, first.upstream, body), body))]
        try:
            await asyncio.wait(running, timeout=after_s)
            route = None if first.began or first.is_over else self._choose(call)
            if route is None or not self._budget.spend():
                await running[0]
                return first
            second = self._start(call, route)
            call.outlet.rivals = [first, second]
            self._counters.count(self._counters.hedges, "sent")
            body = prepare(call.body, call.envelope, second.upstream.engine)
            running.append(asyncio.create_task(second.run(self._head(call, second.upstream, body), body)))
            return await self._race(call, first, second, running)
        finally:
            for task in running:
                task.cancel()

    async def _race(self, call: Call, first: Attempt, second: Attempt, running: list["asyncio.Task[None]"]) -> Attempt:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        early, late = (first, second) if first.is_over else (second, first)
        if early.fault is None:
            late.stop("rival", "another worker was faster")
        else:
            if early.fault.kind != "rival":
                self._report(call, early)
            await asyncio.wait(running)
        winner = late if early.fault is not None else early
        if winner is second:
            self._counters.count(self._counters.hedges, "won")
        return winner

    def first_byte(self, call: Call, attempt: Attempt) -> None:
        """Note that a worker has begun to answer."""
        self._admission.began(call.ticket)
        self._accounts.first_byte(call, attempt)

    # What becomes of a request after an attempt.

    async def _settle(self, call: Call, attempt: Attempt) -> _Next:
        if attempt.fault is None:
            if attempt.body is None:
                return self._finish(call, attempt, tokens_from(call.outlet.usage()))
            judged = await self._judge(call, attempt, attempt.body)
            if isinstance(judged, _Next):
                return judged
            attempt.fault = judged
        call.fault = attempt.fault
        return await self._go_on(call, attempt, attempt.fault)

    async def _judge(self, call: Call, attempt: Attempt, body: bytes) -> _Next | Fault:
        """Whether an answer in one piece is one for the client."""
        status = attempt.status
        if status >= 500:
            if not await self._health.outlives(attempt.upstream):
                return Fault("lost", f"it answered {status} and was lost")
            self._lost_workers.failed(call.request.body, attempt.upstream)
            if status != 503:
                self._tell_fault(attempt.upstream, Fault("status", f"it answered {status}"))
        if call.outlet.began:
            return Fault("refused", f"it answered {status} to what was to go on")
        if status in (429, 503) and self._untried(call) and self._budget.spend():
            call.busy = attempt
            self._counters.retries += 1
            return _Next.AGAIN
        if status >= 300 or not call.is_known:
            return self._pass_on(call, attempt)
        if not body:
            return Fault("body", "its answer is empty")
        try:
            tokens = tokens_in(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Fault("garbage", "its answer is no JSON object")
        call.outlet.whole(attempt, body)
        return self._finish(call, attempt, tokens)

    async def _go_on(self, call: Call, attempt: Attempt, fault: Fault) -> _Next:
        """Another worker, if there may be one. Raises RefusedError where the request ends here."""
        if fault.kind == "preempted":
            self._counters.preempted += 1
            call.tried.discard(attempt.upstream.slot)
            return _Next.QUEUE
        if fault.kind == "own":
            _log.warning("no connection to a worker can be made: %s", fault.reason)
            raise RefusedError(failure(503, "the router cannot open another connection; send this again later"))
        if fault.kind == "error" and await self._health.outlives(attempt.upstream):
            call.outlet.pass_error(attempt)
            return _Next.DONE
        self._report(call, attempt)
        await self._count_loss(call, attempt, fault)
        if call.outlet.began:
            self._require_failover(call, fault)
        if fault.kind in _COSTLY and not self._budget.spend():
            raise RefusedError(failure(503, f"{_of(attempt)}; too many requests are tried again at the moment"))
        self._counters.retries += not call.outlet.began
        self._counters.moved += fault.kind == "moved"
        return _Next.AGAIN

    def _require_failover(self, call: Call, fault: Fault) -> None:
        """Raise RefusedError where nobody may go on with an answer that has begun."""
        if call.outlet.transcript.size == 0 and call.outlet.is_events:
            return  # only comments
        if not self._failover or not call.outlet.is_events:
            raise RefusedError(_broke_off(fault))
        call.is_continued = True
        self._counters.count(self._counters.failovers, ("tried", "stream"))

    async def _count_loss(self, call: Call, attempt: Attempt, fault: Fault) -> None:
        """Note that a worker was lost under this request. Raises RefusedError if it gets no other one."""
        body = call.request.body
        if fault.kind in ("stream", "error"):
            call.lost += _STREAM_LOSS
        elif fault.kind == "lost" or (fault.kind == "body" and not await self._health.outlives(attempt.upstream)):
            self._lost_workers.lost(body, attempt.upstream)
            call.lost += 1
        if call.lost >= MAX_WORKERS_LOST or self._lost_workers.is_barred(body):
            raise RefusedError(workers_lost(f"last {_of(attempt)}"))

    def _report(self, call: Call, attempt: Attempt) -> None:
        """Tell of a worker's fault, and choose the worker no more for a while."""
        fault, upstream = attempt.fault, attempt.upstream
        assert fault is not None
        self._counters.count(self._counters.upstream_errors, (upstream.id, fault.kind))
        if fault.kind not in _SUSPICIOUS:
            return
        _log.warning("%s (%s, request %s)", _of(attempt), fault.kind, call.request.head.id)
        self._tell_fault(upstream, fault)
        if upstream.is_trusted:  # what it has in flight may all be tried again
            self._budget.grant(len(upstream.attempts) + 1)
        self._workers.suspect(upstream)
        if fault.kind not in ("garbage", "body"):
            self._health.ask(upstream).add_done_callback(lambda task: self._recover(upstream, task))

    def _tell_fault(self, upstream: Upstream, fault: Fault) -> None:
        self._tell(Suspect(slot=upstream.slot, reason=fault.reason[:200], kind=fault.kind, at=time.time()))

    def _recover(self, upstream: Upstream, task: "asyncio.Task[bool]") -> None:
        """Trust a worker again that has lost a connection and nothing else."""
        if not task.cancelled() and task.result():
            self._workers.trust(upstream)

    def _pass_on(self, call: Call, attempt: Attempt) -> _Next:
        """Give the client an answer that says what is wrong, or one of an unknown form."""
        status, body = attempt.status, attempt.body or b""
        if status in (404, 405) and b'"error"' not in body:
            call.outlet.fail(no_such_path(call.request.head.method, call.request.head.path))
            return _Next.DONE
        if status in (429, 503) and not value_of(attempt.headers, b"retry-after"):
            attempt.headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        call.outlet.whole(attempt, body)
        return _Next.DONE if status >= 400 else self._finish(call, attempt, None)

    def _finish(self, call: Call, attempt: Attempt, tokens: Tokens | None) -> _Next:
        """Note an answer that is complete."""
        attempt.upstream.answered()
        self._lost_workers.answered(call.request.body)
        self._accounts.answered(call, attempt, tokens)
        return _Next.DONE


def _broke_off(fault: Fault) -> Whole:
    return failure(502, f"the answer broke off: {fault.reason}", code="answer_broke_off")


def _of(attempt: Attempt) -> str:
    """A worker's fault in words."""
    return f"worker {attempt.upstream.id}: {attempt.fault.reason if attempt.fault else ''}"
