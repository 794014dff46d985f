"""One request at one worker: takes the answer from the connection and gives it to the client's outlet.

The connection's protocol calls the attempt for each piece of data, without a task in between. Whoever has started the
attempt waits for `run`, or is called by `on_over`. Then `fault` says what went wrong, or `body` is an answer in one
piece.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..http.messages import ConnectError, Flow, Headers, NoAnswerError
from .outlet import Outlet
from .stream.events import EventGate, split_error
from .stream.form import are_good, fault_of_head, is_nothing
from .workers.upstream import Upstream

MOST_BYTES = 8 * 2**20  # of an answer that is held until it is complete
_EVENT_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt has ended without an answer.

    `kind`: connect (nothing was sent), own (this process can open no connection), lost (no answer came), body (the
    answer broke off before its first byte), garbage (it is none), stream (it broke off later), error (the worker has
    sent an error event), refused (it would not go on with a stream), stopped, moved, preempted (the relay has ended
    it), rival (another attempt was faster).
    """

    kind: str
    reason: str


class Owner(Protocol):
    """Whoever has started an attempt."""

    @property
    def wants_events(self) -> bool | None:
        """Whether the answer must come as events; None where its form is not known."""

    def missing_end(self) -> bytes | None:
        """The events that a stream lacks whose answer is complete; None: it is not."""

    def may_move(self) -> bool:
        """Whether its request could go on elsewhere."""

    def first_byte(self, attempt: "Attempt") -> None:
        """Note that the first byte of a body has come."""


class Attempt:
    """The sink of a worker's answer. It counts at its worker until `leave`.

    Args:
        tokens: of the prompt that the worker has to compute, as estimated.
    """

    __slots__ = (
        "_flow",
        "_gate",
        "_is_counted",
        "_is_opaque",
        "_parts",
        "_passes",
        "_size",
        "_waiter",
        "began",
        "body",
        "fault",
        "first_at",
        "headers",
        "heard",
        "heard_at",
        "is_over",
        "is_paused",
        "on_over",
        "others_tokens",
        "outlet",
        "owner",
        "sent_at",
        "status",
        "tokens",
        "upstream",
    )  # fmt: skip

    def __init__(self, upstream: Upstream, outlet: Outlet, tokens: int, owner: Owner) -> None:
        self.upstream, self.outlet, self.tokens, self.owner = upstream, outlet, tokens, owner
        self.status = 0
        self.headers: Headers = []
        self.began = False  # the first byte of the body has come, and is on its way to the client if it is passed on
        self.heard = self.is_paused = False
        self.fault: Fault | None = None
        self.body: bytes | None = None  # of an answer in one piece
        self._parts: list[bytes] = []
        self._size = 0
        self._gate: EventGate | None = None  # of a stream of events
        self._is_opaque = False  # something else than JSON or an error, such as audio: passed on as it comes
        self._passes = False  # what comes goes to the client, and is no stream of events
        self._flow: Flow | None = None
        self.is_over = False  # nothing more will come
        self.on_over: Callable[[Attempt], None] | None = None  # called then, unless `run` is awaited
        self._waiter: asyncio.Future[None] | None = None  # of `run`
        self._is_counted = True
        self.others_tokens = upstream.pending_tokens  # that the worker had to compute before
        self.sent_at = self.first_at = self.heard_at = time.monotonic()
        upstream.entered(self, tokens)

    def try_send(self, head: bytes, body: bytes, on_over: "Callable[[Attempt], None]") -> bool:
        """Send the request if a connection is free, and call `on_over` at its end. False: it is for `run`."""
        flow = self.upstream.connections.try_send(head, body, self)
        if flow is None:
            return False
        self._flow, self.on_over = flow, on_over
        return True

    async def run(self, head: bytes, body: bytes) -> None:
        """Send the request and wait until the attempt is over. Cancelling aborts it at the worker."""
        try:
            if not self.is_over:
                self._flow = await self.upstream.connections.send(head, body, self)
            if not self.is_over:
                self._waiter = self.upstream.loop.create_future()
                await self._waiter
        except ConnectError as error:
            self._end(Fault("own" if error.own_fault else "connect", str(error)))
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Abort it at the worker, unless the answer is complete, and count no longer."""
        self._abort()
        self.leave()

    def leave(self) -> None:
        """Count no longer at the worker."""
        if self._is_counted:
            self._is_counted = False
            self.upstream.left(self, 0 if self.began else self.tokens)

    def give_up(self, kind: str, reason: str) -> None:
        """End the attempt if its request can go on elsewhere."""
        if not self.is_over and self.owner.may_move():
            self.stop(kind, reason)

    def stop(self, kind: str, reason: str) -> None:
        """End the attempt, which the worker notices at once."""
        if not self.is_over:
            self._abort()
            self._end(Fault(kind, reason))
        self.leave()

    def pause(self) -> None:
        """The client is behind."""
        self.is_paused = True
        if self._flow is not None:
            self._flow.pause()

    def resume(self) -> None:
        """The client reads again."""
        self.is_paused = False
        if self._flow is not None and not self.is_over:
            self._flow.resume()

    # The sink.

    def on_head(self, status: int, headers: Headers) -> None:
        """Decide what to do with the body: pass events on, or hold it until it is complete or too long."""
        self.status, self.headers, self.heard = status, headers, True
        if status >= 400:
            return
        wants_events = self.owner.wants_events
        if wants_events is not None and (fault := fault_of_head(status, headers, wants_events)):
            self.stop("garbage", fault)
            return
        kind = value_of(headers, b"content-type")
        if kind[:17].lower() == b"text/event-stream":
            self._gate = EventGate()
        self._is_opaque = b"json" not in kind and wants_events is None

    def on_data(self, data: bytes) -> None:
        """Some of the body."""
        self.heard = True
        if self.is_over:
            return
        if self._gate is not None:
            self._take_events(data)
        elif self._passes:
            self.outlet.raw(self, data)
        else:
            self._hold(data)

    def on_end(self) -> None:
        """The body is complete."""
        if self.is_over:
            return
        if self._gate is not None:
            self._end_events()
        elif self._passes:
            self.outlet.end()
        else:
            self.body = b"".join(self._parts)
        self._end(None)

    def on_lost(self, error: Exception) -> None:
        """The answer broke off, or the request could not be sent again on a new connection."""
        if isinstance(error, ConnectError) and error.own_fault:  # which says nothing of the worker
            self._end(Fault("own", str(error)))
            return
        if self.began and self.owner.wants_events and self.outlet.is_complete():  # what is lost is nothing of it
            self.outlet.end()
            self._end(None)
            return
        unbegun = "garbage" if isinstance(error, NoAnswerError) else "body" if self.status else "lost"
        kind = "stream" if self.began else unbegun
        self._end(Fault(kind, f"the connection broke off: {error}" if str(error) else "the connection broke off"))

    # What happens to the body.

    def _hold(self, data: bytes) -> None:
        if not self.began:
            self._first()
        self._parts.append(data)
        self._size += len(data)
        if self._is_opaque or self._size > MOST_BYTES:
            self._pass_on()

    def _pass_on(self) -> None:
        """Give what is held to the client, and all that follows, unless it is none of the answer that is wanted."""
        held, self._parts = b"".join(self._parts), []
        is_answer = self.owner.wants_events is None or (self.status < 400 and held.lstrip()[:1] == b"{")
        if not is_answer or self.outlet.began:
            self.stop("garbage", f"it answers {self.status} with more than {MOST_BYTES} bytes")
            return
        self._passes = True
        self.outlet.begin(self, events=False)
        self.outlet.raw(self, held)

    def _take_events(self, data: bytes) -> None:
        assert self._gate is not None
        whole = self._gate.feed(data)
        if whole and self.owner.wants_events and not are_good(whole):
            self.stop("stream" if self.began else "garbage", "an event is no JSON object with choices")
            return
        if whole and not self.is_over and (self.began or self._begin_events(whole)):
            self._send_events(whole)
        if self._gate.held_bytes > MOST_BYTES:
            self.stop("stream" if self.began else "garbage", f"an event has more than {MOST_BYTES} bytes")

    def _begin_events(self, whole: bytes) -> bool:
        """Look at the first events; False if there is none to be passed on."""
        if not whole.lstrip().startswith(_EVENT_STARTS):
            self.stop("garbage", "the stream does not begin with an event")
            return False
        if whole.startswith(b":") and whole.count(b"\n\n") == 1:
            self.outlet.comment(self, whole)  # keeps connections alive while the prompt is computed
            return False
        if self.owner.wants_events and is_nothing(whole):
            self.stop("body", "the stream has no event but its end")
            return False
        self.outlet.claim(self)
        self._first()
        return True

    def _send_events(self, whole: bytes) -> None:
        failed = split_error(whole) if b'"error"' in whole else None
        if failed is not None:
            whole, event = failed
        if whole and self.outlet.events(self, whole):
            self.outlet.end()
            self._abort()  # what is still to come is not needed
            self._end(None)
        elif failed is not None:
            self.outlet.error = event
            self._abort()
            self._end(Fault("error", "the worker has sent an error"))

    def _end_events(self) -> None:
        """The end of a stream of events, which is a fault if the answer should have gone on."""
        rest = self._gate.rest() if self._gate is not None else b""
        if rest.strip():
            self._take_events(b"\n\n")
        if self.is_over:
            return
        if not self.began:
            self._end(Fault("body", "the stream has no event"))
        elif (missing := b"" if self.outlet.is_complete() else self.owner.missing_end()) is None:
            self._end(Fault("stream", "the stream broke off: it ended before the answer did"))
        else:
            self.outlet.end(missing)

    def _first(self) -> None:
        self.began = True
        self.upstream.answering(self.tokens if self._is_counted else 0)
        self.owner.first_byte(self)

    def _end(self, fault: Fault | None) -> None:
        if self.is_over:
            return
        self.is_over, self.fault = True, fault
        if self.on_over is not None:
            self.on_over(self)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _abort(self) -> None:
        if self._flow is not None:
            self._flow.abort()
            self._flow = None


def value_of(headers: Headers, wanted: bytes) -> bytes:
    """The first header of that lower-case name; empty if there is none."""
    for name, value in headers:
        if name == wanted:
            return value
    return b""
