"""What becomes of a request after an attempt: its answer is complete, another worker is tried, or it is refused."""

import asyncio
import enum
import logging
import time
from collections.abc import Callable

import msgspec

from ..control.counters import Counters
from ..control.messages import FromRelay, Suspect
from ..http.messages import Whole
from .accounts import Accounts
from .answers import RETRY_AFTER_S, failure, no_such_path, workers_lost
from .attempt import Attempt, Fault, value_of
from .call import Call, RefusedError
from .health import Health
from .lost_workers import MAX_WORKERS_LOST, LostWorkers
from .refusals import Refusals, is_refusal
from .retry_budget import RetryBudget
from .stream.events import usage_of
from .stream.usage import Tokens, tokens_from, tokens_in
from .upstream import Upstream
from .workers import Workers

# A worker that is lost in mid-answer says less of the request than one that is lost before: so many count as one.
_STREAM_LOSS = 0.25
# Kinds of faults that make a worker suspect, and those after which another attempt costs engines work again.
_SUSPICIOUS = frozenset({"connect", "lost", "body", "garbage", "stream", "error"})
_COSTLY = frozenset({"lost", "body", "garbage", "stream", "error"})
BROKEN = frozenset({"body", "garbage", "stream"})

_log = logging.getLogger(__name__)


class Next(enum.Enum):
    """What becomes of a request after an attempt."""

    DONE = enum.auto()
    AGAIN = enum.auto()  # another worker
    WAIT = enum.auto()  # until there is another worker
    QUEUE = enum.auto()  # it has given way


class Outcomes:
    """Judges what attempts have come to.

    Args:
        tell: sends to the supervisor.
        has_others: whether a worker that was not tried could take the request.
    """

    def __init__(
        self,
        workers: Workers,
        counters: Counters,
        accounts: Accounts,
        *,
        tell: Callable[[FromRelay], None],
        budget: RetryBudget,
        failover: bool,
        has_others: Callable[[Call], bool],
    ) -> None:
        self._workers, self._counters, self._accounts, self._tell = workers, counters, accounts, tell
        self._budget, self._failover, self._has_others = budget, failover, has_others
        self._lost_workers, self._refusals = LostWorkers(), Refusals()
        self._health = Health()

    def require_allowed(self, body: bytes) -> None:
        """Raise RefusedError for a request that has taken as many workers as it may."""
        if self._lost_workers.is_barred(body):
            raise RefusedError(workers_lost("that was when it was sent before"))

    def close(self) -> None:
        """Ask workers for their health no more."""
        self._health.close()

    async def settle(self, call: Call, attempt: Attempt) -> Next:
        """What is next. Raises RefusedError where the request ends here."""
        if attempt.fault is None:
            if attempt.body is None:
                return self._finish(call, attempt, tokens_from(call.outlet.usage()))
            judged = await self._judge(call, attempt, attempt.body)
            if isinstance(judged, Next):
                return judged
            attempt.fault = judged
        call.fault = attempt.fault
        return await self._go_on(call, attempt, attempt.fault)

    async def _judge(self, call: Call, attempt: Attempt, body: bytes) -> Next | Fault:
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
        is_for_another = status in (429, 503) or (is_refusal(status) and self._is_doubtful(call, attempt))
        if is_for_another and self._has_others(call) and self._budget.spend():
            call.spare = call.spare or attempt
            self._counters.retries += 1
            return Next.AGAIN
        if status >= 300 or not call.is_known:
            return self.pass_on(call, attempt)
        if not body:
            return Fault("body", "its answer is empty")
        try:
            tokens = tokens_in(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Fault("garbage", "its answer is no JSON object")
        call.outlet.whole(attempt, body)
        return self._finish(call, attempt, tokens)

    def _is_doubtful(self, call: Call, attempt: Attempt) -> bool:
        """Whether another worker is to be asked what this one has refused."""
        if not call.is_known:
            return False
        if call.doubted is not None:
            self._refusals.cleared(call.doubted)
            return False
        if not self._refusals.refused(attempt.upstream):
            return False
        call.doubted = attempt.upstream
        if self._refusals.others_answer(attempt.upstream):
            fault = Fault("refusing", f"it answers {attempt.status} where others answer well")
            self._tell_fault(attempt.upstream, fault)
        return True

    async def _go_on(self, call: Call, attempt: Attempt, fault: Fault) -> Next:
        """Another worker, if there may be one. Raises RefusedError where the request ends here."""
        if fault.kind == "preempted":
            self._counters.preempted += 1
            call.tried.discard(attempt.upstream.slot)
            return Next.QUEUE
        if fault.kind == "own":
            _log.warning("no connection to a worker can be made: %s", fault.reason)
            raise RefusedError(failure(503, "the router cannot open another connection; send this again later"))
        if fault.kind == "error" and await self._health.outlives(attempt.upstream):
            call.outlet.pass_error(attempt)
            return Next.DONE
        self.report(call, attempt)
        await self._count_loss(call, attempt, fault)
        if call.outlet.began:
            self._require_failover(call, fault)
        if fault.kind in _COSTLY and not self._budget.spend():
            raise RefusedError(failure(503, f"{_of(attempt)}; too many requests are tried again at the moment"))
        self._counters.retries += not call.outlet.began
        self._counters.moved += fault.kind == "moved"
        return Next.AGAIN

    def _require_failover(self, call: Call, fault: Fault) -> None:
        """Raise RefusedError where nobody may go on with an answer that has begun."""
        if call.outlet.transcript.size == 0 and call.outlet.is_events:
            return  # only comments
        if not self._failover or not call.outlet.is_events:
            raise RefusedError(broke_off(fault))
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

    def report(self, call: Call, attempt: Attempt) -> None:
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

    def pass_on(self, call: Call, attempt: Attempt) -> Next:
        """Give the client an answer that says what is wrong, or one of an unknown form."""
        status, body = attempt.status, attempt.body or b""
        if status in (404, 405) and b'"error"' not in body:
            call.outlet.fail(no_such_path(call.request.head.method, call.request.head.path))
            return Next.DONE
        if status in (429, 503) and not value_of(attempt.headers, b"retry-after"):
            attempt.headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        call.outlet.whole(attempt, body)
        return Next.DONE if status >= 400 else self._finish(call, attempt, tokens_from(usage_of(body)))

    def _finish(self, call: Call, attempt: Attempt, tokens: Tokens | None) -> Next:
        """Note an answer that is complete."""
        attempt.upstream.answered()
        if call.is_known:
            self._refusals.answered(attempt.upstream)
        self._lost_workers.answered(call.request.body)
        self._accounts.answered(call, attempt, tokens)
        return Next.DONE


def broke_off(fault: Fault) -> Whole:
    """The answer that says so."""
    return failure(502, f"the answer broke off: {fault.reason}", code="answer_broke_off")


def _of(attempt: Attempt) -> str:
    """A worker's fault in words."""
    return f"worker {attempt.upstream.id}: {attempt.fault.reason if attempt.fault else ''}"
