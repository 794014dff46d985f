"""What is counted and learned of each request: metrics, usage of tenants, speed of workers, lengths of answers."""

import time
from collections.abc import Callable
from typing import Protocol

from ..control.counters import Counters
from ..endpoints import COUNTED
from ..http.messages import Head
from ..policies.estimates import Lengths, Rates
from ..policies.policy import Policy, Route
from ..tenants.tenant import Priority, Tenant, Usage
from .access_log import Access, AccessLog
from .attempt import Attempt
from .call import Call
from .outlet import Outlet
from .stream.usage import Tokens

_OTHER = "other"
_PRIORITIES = tuple(priority.name.lower() for priority in Priority)
# After so many answers, one of a few is enough to go on learning from.
_MANY, _OF_MANY = 256, 4
_CLIENT_CLOSED_REQUEST = 499  # nginx's number for a client that hung up


class Spending(Protocol):
    """This relay's row of the board."""

    def spend(self, tenant_slot: int, minute: int, requests: int = 0, tokens: int = 0) -> None:
        """Note requests and tokens of a tenant in a minute."""

    def reserve(self, tenant_slot: int, tokens: int) -> None:
        """Note tokens that a request in flight may spend; a negative number when it has ended."""


class Accounts:
    """The books of one relay."""

    def __init__(
        self,
        counters: Counters,
        spending: Spending,
        policy: Policy,
        lengths: Lengths,
        rates: Rates,
        log: AccessLog | None = None,
        clock: Callable[[], float] = time.monotonic,
        within_quota: Callable[[Tenant], None] = lambda tenant: None,
    ) -> None:
        self._answers = 0
        self.usage: dict[str, Usage] = {}  # by tenant
        self._counters, self._spending, self._policy = counters, spending, policy
        self._lengths, self._rates, self._log, self._clock = lengths, rates, log, clock
        self._within_quota = within_quota

    def began(self, call: Call) -> None:
        """Reserve what a request is expected to use of its tenant's tokens. Raises Refused where none are left."""
        tenant = call.request.head.tenant
        if tenant.tokens_per_day is not None:
            self._within_quota(tenant)
            call.reserved = call.routed.input_tokens + call.routed.output_tokens
            self._spending.reserve(tenant.slot, call.reserved)

    def sent(self, call: Call, route: Route) -> None:
        """A worker was chosen."""
        counters = self._counters
        counters.count(counters.choices, route.reason)
        call.sent += 1
        if call.sent == 1:
            call.queue_s = self._clock() - call.began
            counters.time(counters.queue_time, _PRIORITIES[call.ticket.priority], call.queue_s)

    def first_byte(self, call: Call, attempt: Attempt) -> None:
        """The first byte of an answer has come."""
        now = self._clock()
        attempt.first_at = now
        attempt.upstream.silence.ended(now - attempt.sent_at)
        if call.first_byte_s is None:
            call.first_byte_s = now - call.began
            self._counters.time(self._counters.ttft, endpoint(call.request.head), call.first_byte_s)
        if call.envelope.streams:
            self._rates.began(attempt.upstream.slot, attempt.tokens, attempt.others_tokens, now - attempt.sent_at)

    def answered(self, call: Call, attempt: Attempt, tokens: Tokens | None) -> None:
        """An answer is complete."""
        counters, upstream = self._counters, attempt.upstream
        call.is_answered = True
        counters.count(counters.worker_requests, upstream.id)
        self._charge(call, tokens)
        if tokens is not None:
            counters.count(counters.worker_tokens, upstream.id, tokens.generated)
            self._learn(call, attempt, tokens)

    def _charge(self, call: Call, tokens: Tokens | None) -> None:
        """Count a request and its tokens for its tenant."""
        counters, tenant, call.tokens = self._counters, call.request.head.tenant, tokens
        usage = self.usage.get(tenant.name)
        if usage is None:
            usage = self.usage[tenant.name] = Usage()
        usage.requests += 1
        if tokens is None:
            return
        usage.prompt_tokens += tokens.prompt
        usage.cached_tokens += tokens.cached or 0
        usage.generated_tokens += tokens.generated
        self._spending.spend(tenant.slot, int(time.time() // 60), tokens=tokens.prompt + tokens.generated)
        counters.prompt_tokens += tokens.prompt
        counters.cached_tokens += tokens.cached or 0
        counters.generated_tokens += tokens.generated

    def _learn(self, call: Call, attempt: Attempt, tokens: Tokens) -> None:
        if tokens.cached is not None and call.route is not None and attempt.upstream is call.route.worker:
            self._counters.expected_cached_tokens += min(call.route.cached_tokens, tokens.prompt)
            self._policy.corrected(call.route, tokens.cached)
        self._answers += 1
        if self._answers > _MANY and self._answers % _OF_MANY:
            return
        model, upstream = call.lane[0] or "", attempt.upstream  # not the client's name: it may be any alias
        if call.envelope.generates:
            self._lengths.answered(model, call.routed.tenant, tokens.generated)
        if call.envelope.choices == 1:
            self._lengths.prompted(model, call.prompt_bytes, tokens.prompt)
        if call.envelope.streams and call.sent == 1:
            self._rates.streamed(upstream.slot, tokens.generated, self._clock() - attempt.first_at)

    def ended(self, head: Head, call: Call | None, outlet: Outlet, began: float) -> None:
        """A request is over, in whatever way. `call`: None where it was refused before it became one."""
        counters, path = self._counters, endpoint(head)
        if call is not None and call.reserved:
            self._spending.reserve(head.tenant.slot, -call.reserved)
        if call is not None and not call.is_answered:
            self._charge_unanswered(call, outlet)
        status = outlet.status if outlet.is_over else _CLIENT_CLOSED_REQUEST
        seconds = self._clock() - began
        counters.count(counters.requests, (path, status))
        counters.time(counters.duration, path, seconds)
        if call is not None and call.is_continued:
            counters.count(counters.failovers, ("succeeded" if call.is_answered else "failed", "stream"))
        if self._log is not None:
            self._log.finished(_access(head, call, status, seconds))

    def _charge_unanswered(self, call: Call, outlet: Outlet) -> None:
        """Count what a client has got of a stream that it has left or that broke off; nobody else would count it.

        One that hangs up has also used the prompt that a worker computes for it, whatever has come of it.
        """
        generated, has_left = outlet.tokens_sent(), not outlet.is_over
        if generated or (has_left and call.sent and call.envelope.computes):
            self._charge(call, Tokens(call.routed.input_tokens, generated, None))


def _access(head: Head, call: Call | None, status: int, seconds: float) -> Access:
    access = Access(id=head.id, tenant=head.tenant.name, path=head.public_path, status=status, seconds=seconds)
    if call is not None:
        access.model, access.attempts = call.routed.model, call.sent
        access.queue_s, access.first_byte_s = call.queue_s, call.first_byte_s
        if call.route is not None:
            access.worker = call.route.worker.id
        if call.tokens is not None:
            access.prompt_tokens, access.generated_tokens, access.cached_tokens = call.tokens
    return access


def endpoint(head: Head) -> str:
    """The label of a path in metrics."""
    path = head.public_path
    return path if path in COUNTED else _OTHER
