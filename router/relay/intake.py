"""What is known of a generation request before it goes anywhere: its envelope, its prompt, its place in the queue."""

import time
from collections.abc import Mapping

from ..admission.ticket import Ticket
from ..http.messages import Request
from ..policies.eligible import Eligibility
from ..policies.estimates import Lengths
from ..policies.policy import RoutedRequest
from ..policies.prefix import block_hashes, leading_tokens
from ..tenants.tenant import Priority, Tenant
from .answers import failure, unknown_model
from .call import Call, Forwarding, RefusedError
from .outlet import Outlet
from .stream.envelope import Envelope, EnvelopeError, prompt_text, read_envelope, with_field
from .stream.transcript import Transcript

_Headers = Mapping[bytes, bytes]
_PRIORITIES = {priority.name.lower(): priority for priority in Priority}


class Intake:
    """Makes calls of requests."""

    def __init__(self, eligibility: Eligibility, lengths: Lengths) -> None:
        self._eligibility, self._lengths = eligibility, lengths

    def call(self, request: Request, outlet: Outlet, forwarding: Forwarding) -> Call:
        """The call of a request. Raises RefusedError for what is no request, and for a model that nobody serves."""
        head, tenant = request.head, request.head.tenant
        headers = dict(head.headers)
        envelope = _envelope(request, headers)
        priority = _priority(headers, tenant)
        prompt = prompt_text(envelope)
        session = headers.get(b"x-session-id")
        routed = self._routed(head.path, envelope, prompt, tenant, session)
        lane = self._eligibility.lane(routed)
        body, model = request.body, lane[0]
        if model is not None:
            if model not in self._eligibility.models:
                raise RefusedError(unknown_model(model, self._eligibility.models))
            if model != envelope.model and envelope.is_read:
                body = with_field(body, "model", model, is_new=envelope.model is None and b'"model"' not in body)
        outlet.kind = envelope.kind
        if envelope.streams:
            outlet.transcript = Transcript()
            outlet.hides_usage = not envelope.wants_usage
        outlet.hides_ids = not envelope.wants_token_ids
        ticket = Ticket(tenant.name, lane, priority, routed.input_tokens + routed.output_tokens, tenant.weight)
        return Call(request, outlet, envelope, routed, lane, ticket, body, len(prompt), forwarding, time.monotonic())

    def _routed(
        self, path: str, envelope: Envelope, prompt: bytes, tenant: Tenant, session: bytes | None
    ) -> RoutedRequest:
        model = envelope.model or ""
        bytes_per_token = self._lengths.bytes_per_token(model)
        blocks = block_hashes(prompt)
        user = envelope.user if isinstance(envelope.user, str) else None
        return RoutedRequest(
            path=path,
            model=envelope.model,
            tenant=tenant.name,
            session=session.decode("latin-1") if session else user,
            input_tokens=max(1, int(len(prompt) / bytes_per_token)),
            output_tokens=self._lengths.output_tokens(model, tenant.name, envelope.limit),
            blocks=blocks,
            leading_tokens=leading_tokens(bytes_per_token),
        )


def _envelope(request: Request, headers: _Headers) -> Envelope:
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    try:
        return read_envelope(request.head.path, content_type, request.body)
    except EnvelopeError as error:
        raise RefusedError(failure(400, str(error))) from error


def _priority(headers: _Headers, tenant: Tenant) -> Priority:
    """The tenant's class, or the lower one that the request asks for."""
    asked = headers.get(b"x-priority")
    if not asked:
        return tenant.priority
    priority = _PRIORITIES.get(asked.decode("latin-1").strip().lower())
    if priority is None:
        given = asked[:80].decode("latin-1")
        raise RefusedError(failure(400, f"X-Priority = {given!r}: expected one of {', '.join(_PRIORITIES)}"))
    return max(tenant.priority, priority)
