"""One request at one worker: takes the answer from the connection and gives it to the client's outlet.

The callbacks are called by the connection's protocol for each piece of data, without a task in between. Whoever has
started the attempt waits for `run`, and then finds in `fault` what went wrong, or in `body` an answer in one piece.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ..http.messages import ConnectError, Flow, Headers
from .events import EventGate
from .heads import value_of
from .outlet import Outlet
from .upstream import Upstream

MOST_BYTES = 8 * 2**20  # of an answer that is held until it is complete
_EVENT_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt has ended without an answer.

    `kind`: connect (nothing was sent), own (this process can open no connection), lost (no answer came), body (the
    answer broke off before its first byte), garbage (it is none), stream (it broke off later), stopped, moved,
    preempted (the relay has ended it), rival (another attempt was faster).
    """

    kind: str
    reason: str


class Attempt:
    """The sink of a worker's answer.

    Args:
        tokens: of the prompt, as estimated.
        is_known: the path is one whose answers are events with JSON or a JSON object.
        may_move: whether the request could go on elsewhere.
        on_first: called when the first byte of the body has come.
    """

    def __init__(
        self,
        upstream: Upstream,
        outlet: Outlet,
        tokens: int,
        *,
        is_known: bool,
        may_move: Callable[["Attempt"], bool],
        on_first: Callable[["Attempt"], None],
    ) -> None:
        self.upstream, self.outlet = upstream, outlet
        self.status = 0
        self.headers: Headers = []
        self.began = False  # the first byte of the body has come, and is on its way to the client if it is passed on
        self.heard = False
        self.fault: Fault | None = None
        self.body: bytes | None = None  # of an answer in one piece
        self._tokens, self._is_known = tokens, is_known
        self._may_move, self._on_first = may_move, on_first
        self._parts: list[bytes] = []
        self._size = 0
        self._gate = EventGate()
        self._take = self._hold
        self._flow: Flow | None = None
        self._done = asyncio.get_running_loop().create_future()

    async def run(self, head: bytes, body: bytes) -> None:
        """Send the request and wait until the attempt is over. Cancelling aborts it at the worker."""
        upstream = self.upstream
        upstream.entered(self, self._tokens)
        try:
            self._flow = await upstream.connections.send(head, body, self)
            await self._done
        except ConnectError as error:
            self._end(Fault("own" if error.own_fault else "connect", str(error)))
        finally:
            if not self._done.done() or self.fault is not None:
                self._abort()
            upstream.left(self, 0 if self.began else self._tokens)

    def give_up(self, kind: str, reason: str) -> None:
        """End the attempt if its request can go on elsewhere."""
        if not self._done.done() and self._may_move(self):
            self.stop(kind, reason)

    def stop(self, kind: str, reason: str) -> None:
        """End the attempt, which the worker notices at once."""
        if not self._done.done():
            self._abort()
            self._end(Fault(kind, reason))

    def pause(self) -> None:
        """The client is behind."""
        if self._flow is not None:
            self._flow.pause()

    def resume(self) -> None:
        """The client reads again."""
        if self._flow is not None and not self._done.done():
            self._flow.resume()

    # The sink.

    def on_head(self, status: int, headers: Headers) -> None:
        """Decide what to do with the body: pass events on, or hold it until it is complete or too long."""
        self.status, self.headers, self.heard = status, headers, True
        if status < 400 and value_of(headers, b"content-type")[:17].lower() == b"text/event-stream":
            self._take = self._take_events

    def on_data(self, data: bytes) -> None:
        """Some of the body."""
        self.heard = True
        self._take(data)

    def on_end(self) -> None:
        """The body is complete."""
        if self._done.done():
            return
        if self._take == self._hold:
            self.body = b"".join(self._parts)
            if not self.began:
                self._first()
            self._end(None)
            return
        if self._take == self._take_events and not self._end_events():
            return
        self.outlet.end()
        self._end(None)

    def on_lost(self, error: Exception) -> None:
        """The answer broke off."""
        kind = "stream" if self.began else "body" if self.status else "lost"
        self._end(Fault(kind, f"the connection broke: {error or type(error).__name__}"))

    # What happens to the body.

    def _hold(self, data: bytes) -> None:
        if not self.began:
            self._first()
        self._parts.append(data)
        self._size += len(data)
        if self._size > MOST_BYTES or self._is_opaque():
            self._take = self._pass
            self.outlet.begin(self)
            self.outlet.raw(self, b"".join(self._parts))

    def _is_opaque(self) -> bool:
        """Whether the answer is something else than JSON or an error, such as audio: passed on as it comes."""
        return self.status < 400 and b"json" not in value_of(self.headers, b"content-type")

    def _pass(self, data: bytes) -> None:
        self.outlet.raw(self, data)

    def _take_events(self, data: bytes) -> None:
        whole = self._gate.feed(data)
        if whole:
            if not self.began and not self._begin_events(whole):
                return
            self.outlet.events(self, whole)

    def _begin_events(self, whole: bytes) -> bool:
        """Look at the first events; False if they are not to be passed on."""
        if not whole.startswith(_EVENT_STARTS):
            self.stop("garbage", "the stream does not begin with an event")
            return False
        if not self.outlet.claim(self):
            return False
        self.outlet.begin(self)
        if whole.startswith(b":") and whole.count(b"\n\n") == 1:
            return True  # a comment, which keeps the connection alive while the prompt is computed
        self._first()
        return True

    def _end_events(self) -> bool:
        """The end of a stream of events; False if it should not end here."""
        if rest := self._gate.rest():
            self._take_events(rest + b"\n\n") if not rest.endswith(b"\n") else self._take_events(rest + b"\n")
        if self._done.done():
            return False
        if not self.began:
            self._end(Fault("body", "the stream has no event"))
            return False
        if self._is_known and not self.outlet.is_complete():
            self._end(Fault("stream", "the stream ended before the answer did"))
            return False
        return True

    def _first(self) -> None:
        self.began = True
        self.upstream.answering(self._tokens)
        self._on_first(self)

    def _end(self, fault: Fault | None) -> None:
        if not self._done.done():
            self.fault = fault
            self._done.set_result(None)

    def _abort(self) -> None:
        if self._flow is not None:
            self._flow.abort()
            self._flow = None
