"""One generation request on its way: what is known of it, and what has been tried."""

from typing import Protocol

import msgspec

from ..admission.ticket import Ticket
from ..http.messages import Reply, Request, Whole
from ..policies.eligible import Lane
from ..policies.policy import Route, RoutedRequest
from .attempt import Attempt, Fault
from .losses.blame import Blame
from .outlet import Outlet
from .stream.envelope import CHAT, COMPLETIONS, EMBEDDINGS, TOKENS, Envelope
from .stream.form import wants_events
from .stream.resume import missing_end
from .stream.usage import Tokens
from .workers.upstream import Upstream


class RefusedError(Exception):
    """A request is answered by the relay itself, with `answer`."""

    def __init__(self, answer: Whole) -> None:
        self.answer = answer
        super().__init__(f"answered with {answer.status}")


class Forwarding(Protocol):
    """Whoever sends a call to workers."""

    def may_move(self, call: "Call") -> bool:
        """Whether the request could go on at another worker."""

    def first_byte(self, call: "Call", attempt: Attempt) -> None:
        """Note that a worker has begun to answer."""


class Call(msgspec.Struct, eq=False):
    """A request. `began`: monotonic seconds."""

    request: Request
    reply: Reply
    outlet: Outlet
    envelope: Envelope
    routed: RoutedRequest
    lane: Lane
    ticket: Ticket
    body: bytes  # the client's, for the model that it gets
    prompt_bytes: int
    forwarding: Forwarding
    began: float
    tried: set[int] = msgspec.field(default_factory=set)  # slots
    blame: Blame | None = None  # what is held against it, if anything
    is_preempted: bool = False
    sent: int = 0  # attempts
    queue_s: float | None = None  # until the first one
    first_byte_s: float | None = None
    tokens: Tokens | None = None
    reserved: int = 0  # of the tenant's tokens of the day
    is_answered: bool = False
    is_over: bool = False  # nothing more is done for it
    is_continued: bool = False  # a worker was lost after the answer had begun
    attempts: list[Attempt] = msgspec.field(default_factory=list)  # that run now
    route: Route | None = None  # of the last attempt
    fault: Fault | None = None  # of the last attempt
    spare: Attempt | None = None  # whose answer is passed on if no other worker has a better one
    doubted: Upstream | None = None  # a worker that has refused the request and may be wrong

    @property
    def is_known(self) -> bool:
        """Whether the form of its answer is known: JSON, or events of which the last is [DONE]."""
        return self.envelope.kind in (CHAT, COMPLETIONS, EMBEDDINGS, TOKENS)

    def preempt(self) -> None:
        """Give way to a more urgent request; it is off the board when this returns."""
        self.is_preempted = True
        for attempt in self.attempts:
            attempt.stop("preempted", "a more urgent request came")

    # What its attempts call.

    @property
    def wants_events(self) -> bool | None:
        """Whether its answer must come as events; None where its form is not known."""
        return wants_events(self.envelope)

    def missing_end(self) -> bytes | None:
        """The events that a stream lacks whose answer is complete; None: it is not."""
        return missing_end(self.envelope, self.outlet.transcript)

    def may_move(self) -> bool:
        """Whether the request could go on at another worker."""
        return self.forwarding.may_move(self)

    def first_byte(self, attempt: Attempt) -> None:
        """Note that a worker has begun to answer."""
        self.forwarding.first_byte(self, attempt)
