"""What is known of a generation request before it goes anywhere: its envelope, its prompt, its place in the queue."""

from urllib.parse import parse_qsl

from ..admission.ticket import Ticket
from ..http.messages import Head, Reply, Request
from ..policies.eligible import Eligibility
from ..policies.estimates import Lengths
from ..policies.policy import RoutedRequest
from ..policies.prefix import block_hashes, leading_tokens
from ..tenants.tenant import Priority
from .answers import failure, unknown_model
from .call import Call, Forwarding, RefusedError
from .outlet import Outlet
from .stream.envelope import TOKENS, Envelope, EnvelopeError, read_envelope, with_field
from .stream.prompt import prompt_text
from .stream.transcript import Transcript

_PRIORITIES = {priority.name.lower(): priority for priority in Priority}


class Intake:
    """Makes calls of requests."""

    def __init__(self, eligibility: Eligibility, lengths: Lengths) -> None:
        self._eligibility, self._lengths = eligibility, lengths

    def call(self, request: Request, reply: Reply, outlet: Outlet, forwarding: Forwarding, began: float) -> Call:
        """The call of a request. Raises RefusedError for what is no request, and for a model that nobody serves.

        began: when it was complete, in monotonic seconds.
        """
        head, tenant = request.head, request.head.tenant
        envelope, prompt = _read(request)
        priority = _priority(head)
        routed = self._routed(head, envelope, prompt)
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
        return Call(request, reply, outlet, envelope, routed, lane, ticket, body, len(prompt), forwarding, began)

    def _routed(self, head: Head, envelope: Envelope, prompt: bytes) -> RoutedRequest:
        tenant = head.tenant.name
        model = self._eligibility.likely_model(envelope.model, tenant)
        bytes_per_token = self._lengths.bytes_per_token(model)
        session = head.fields.get(b"x-session-id")
        user = envelope.user if isinstance(envelope.user, str) else None
        return RoutedRequest(
            path=head.path,
            model=envelope.model,
            tenant=tenant,
            session=session.decode("latin-1") if session else user,
            input_tokens=max(1, int(len(prompt) / bytes_per_token)),
            output_tokens=self._lengths.output_tokens(model, tenant, envelope.limit) if envelope.generates else 0,
            blocks=block_hashes(prompt),
            leading_tokens=leading_tokens(bytes_per_token),
        )


def _read(request: Request) -> tuple[Envelope, bytes]:
    """What is known of a request by its body, and its prompt. Raises RefusedError."""
    if request.head.method == b"GET":
        return Envelope(kind=TOKENS, is_read=False, model=_asked_model(request.head)), b""
    content_type = request.head.fields.get(b"content-type", b"").decode("latin-1")
    try:
        envelope = read_envelope(request.head.path, content_type, request.body)
        return envelope, prompt_text(envelope) if envelope.computes else b""
    except EnvelopeError as error:
        raise RefusedError(failure(400, str(error))) from error


def _asked_model(head: Head) -> str | None:
    """The model that a request without a body is about, by its query."""
    query = head.target.partition(b"?")[2].decode("latin-1")
    return next((value for name, value in parse_qsl(query) if name == "model"), None)


def _priority(head: Head) -> Priority:
    """The tenant's class, or the lower one that the request asks for."""
    usual: Priority = head.tenant.priority
    asked = head.fields.get(b"x-priority")
    if not asked:
        return usual
    priority = _PRIORITIES.get(asked.decode("latin-1").strip().lower())
    if priority is None:
        given = asked[:80].decode("latin-1")
        raise RefusedError(failure(400, f"X-Priority = {given!r}: expected one of {', '.join(_PRIORITIES)}"))
    return max(usual, priority)
