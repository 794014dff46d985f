"""What becomes of a request after an attempt: its answer is complete, another worker is tried, or it is refused."""

import asyncio
import enum
import logging
import time
from collections.abc import Callable

import msgspec

from ...core.net.openai import UNKNOWN_PATH
from ..control.counters import Counters
from ..control.messages import BlamedRequests, FromRelay, Suspect
from ..http.messages import Request, Whole
from .accounts import Accounts
from .answers import RETRY_AFTER_S, failure, is_error, is_json_object, unknown_error, unknown_path, workers_lost
from .attempt import Attempt, Fault, value_of
from .call import Call, RefusedError
from .losses.blame import PAUSE_S, Blame
from .losses.lost_workers import LostWorkers
from .losses.retry_budget import RetryBudget
from .stream.events import usage_of
from .stream.form import tokens_of
from .stream.usage import Tokens, tokens_from
from .workers.health import Health
from .workers.refusals import Refusals, is_refusal
from .workers.upstream import Upstream
from .workers.workers import Workers

# Kinds of faults (`Fault.kind`) after which a worker may be lost, after which another attempt costs engines work again,
# that make a worker suspect, and after which the client is told that an answer broke off.
_LOSSES = frozenset({"lost", "body", "stream", "error"})
_COSTLY = _LOSSES | {"garbage"}
_SUSPICIOUS = _COSTLY | {"connect"}
BROKEN = frozenset({"body", "garbage", "stream"})

_OF_PATH = b'"code":"%b"' % UNKNOWN_PATH.encode()  # in an answer of our own engine

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
        self._lost_workers, self._refusals = LostWorkers(lambda: workers.choosable, tell), Refusals()
        self._health = Health()

    def allowed(self, request: Request) -> Blame | None:
        """What is held against a request since it was sent before. Raises RefusedError if that is too much."""
        blame = self._lost_workers.blame(request.head.tenant.name, request.body)
        if blame is not None and blame.is_guilty:
            raise RefusedError(workers_lost(len(blame.slots), "that was when it was sent before"))
        return blame

    def recall(self, blame: Blame) -> None:
        """Hold against a request what equal ones have shown. Raises RefusedError if that is too much."""
        blame.learn()
        if blame.is_guilty:
            raise RefusedError(workers_lost(len(blame.slots), "some of them under equal requests"))

    def ended(self, call: Call, blame: Blame) -> None:
        """Note that a request is over against which something is held."""
        self._lost_workers.ended(call.routed.tenant, call.request.body, blame, is_answered=call.is_answered)

    def blamed(self, blamed: BlamedRequests) -> None:
        """Take what all relays hold against requests."""
        self._lost_workers.hear(blamed)

    def close(self) -> None:
        """Ask workers for their health no more."""
        self._health.close()

    def accept(self, call: Call, attempt: Attempt) -> bool:
        """Note an answer that is good and complete; one in one piece goes to the client. False: it is for `settle`."""
        outlet, body = call.outlet, attempt.body
        if attempt.fault is not None:
            return False
        if body is None:
            self._finish(call, attempt, tokens_from(outlet.usage()))
            return True
        if attempt.status >= 300 or outlet.began or not call.is_known:
            return False
        try:
            tokens = tokens_of(call.envelope.kind, body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        outlet.whole(attempt, body)
        self._finish(call, attempt, tokens)
        return True

    async def settle(self, call: Call, attempt: Attempt) -> Next:
        """What is next. Raises RefusedError where the request ends here."""
        return Next.DONE if self.accept(call, attempt) else await self.rejected(call, attempt)

    async def rejected(self, call: Call, attempt: Attempt) -> Next:
        """What is next where `accept` has taken nothing. Raises RefusedError where the request ends here."""
        if attempt.fault is None:
            judged = await self._judge(call, attempt, attempt.body or b"")
            if isinstance(judged, Next):
                return judged
            attempt.fault = judged
        call.fault = attempt.fault
        return await self._go_on(call, attempt, attempt.fault)

    async def _judge(self, call: Call, attempt: Attempt, body: bytes) -> Next | Fault:
        """What to do with an answer in one piece that `accept` has not taken."""
        status = attempt.status
        if status >= 500:
            if not await self._health.outlives(attempt.upstream):
                return Fault("lost", f"it answered {status} and was lost")
            self._lost_workers.failed(call.routed.tenant, call.request.body, attempt.upstream)
            if status != 503:
                self._tell_fault(attempt.upstream, Fault("status", f"it answered {status}"))
        if call.outlet.has_told or (call.outlet.began and status < 300):
            return Fault("refused", f"it answered {status} to what was to go on")
        is_for_another = status in (429, 503) or (is_refusal(status) and self._is_doubtful(call, attempt))
        if is_for_another and self._has_others(call) and self._budget.spend():
            call.spare = call.spare or attempt
            self._counters.retries += 1
            return Next.AGAIN
        if status >= 300 or not call.is_known:
            return self.pass_on(call, attempt)
        return (
            Fault("garbage", f"its answer is none of {call.envelope.kind}")
            if body
            else Fault("body", "its answer is empty")
        )

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
        if fault.kind == "error" or (fault.kind == "body" and not await self._health.outlives(attempt.upstream)):
            self._blame(call, attempt)
        if fault.kind in _LOSSES and call.blame is not None:
            await self._require_harmless(call.blame, attempt)
        if call.outlet.began:
            self._require_failover(call, fault)
        if fault.kind in _COSTLY and not self._budget.spend():
            raise RefusedError(failure(503, f"{_of(attempt)}; too many requests are tried again at the moment"))
        self._counters.retries += not call.outlet.began
        self._counters.moved += fault.kind == "moved"
        return Next.AGAIN

    def _require_failover(self, call: Call, fault: Fault) -> None:
        """Raise RefusedError where nobody may go on with an answer that has begun."""
        if not call.outlet.has_told:
            return
        if not self._failover or not call.outlet.is_events:
            raise RefusedError(broke_off(fault))
        call.is_continued = True
        self._counters.count(self._counters.failovers, ("tried", "stream"))

    def _blame(self, call: Call, attempt: Attempt) -> None:
        """Hold the loss of a worker against the request that it had, unless it had to end anyway."""
        upstream, fault = attempt.upstream, attempt.fault
        assert fault is not None
        if upstream.is_ending(time.time()):
            self._lost_workers.ended_by_slurm(upstream)
            return
        if call.blame is None:
            call.blame = self._lost_workers.blame_of_lost(call.routed.tenant, call.request.body)
        self._lost_workers.lost(call.blame, upstream, attempt.sent_at, has_begun=fault.kind in ("stream", "error"))

    async def _require_harmless(self, blame: Blame, attempt: Attempt) -> None:
        """Raise RefusedError for a request that gets no other worker; wait before one is tried alone."""
        if blame.is_guilty:
            raise RefusedError(workers_lost(len(blame.slots), f"last {_of(attempt)}"))
        if blame.is_at_stake:
            await asyncio.sleep(PAUSE_S)

    def report(self, call: Call, attempt: Attempt) -> None:
        """Tell of a worker's fault, hold it against the request, and choose the worker no more for a while."""
        fault, upstream = attempt.fault, attempt.upstream
        assert fault is not None
        self._counters.count(self._counters.upstream_errors, (upstream.id, fault.kind))
        if fault.kind in ("lost", "stream"):
            self._blame(call, attempt)
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
        if status in (404, 405) and (b'"error"' not in body or _OF_PATH in body):
            call.outlet.fail(unknown_path(call.request.head.method, call.request.head.public_path))
            return Next.DONE
        if status >= 400 and not (is_error(body) if call.is_known else status < 500 or is_json_object(body)):
            call.outlet.fail(unknown_error(status, body, value_of(attempt.headers, b"retry-after")))
            return Next.DONE
        if status in (429, 503) and not value_of(attempt.headers, b"retry-after"):
            attempt.headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        if call.outlet.began:  # by a comment
            call.outlet.fail(Whole(status, body))
            return Next.DONE
        call.outlet.whole(attempt, body)
        if status < 400:
            self._finish(call, attempt, tokens_from(usage_of(body)))
        return Next.DONE

    def _finish(self, call: Call, attempt: Attempt, tokens: Tokens | None) -> None:
        """Note an answer that is complete."""
        attempt.upstream.answered()
        if call.is_known:
            self._refusals.answered(attempt.upstream)
        self._accounts.answered(call, attempt, tokens)


def broke_off(fault: Fault) -> Whole:
    """The answer that says so."""
    return failure(502, f"the answer broke off: {fault.reason}", code="answer_broke_off")


def _of(attempt: Attempt) -> str:
    """A worker's fault in words."""
    return f"worker {attempt.upstream.id}: {attempt.fault.reason if attempt.fault else ''}"
