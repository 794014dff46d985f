"""The client's side of one request: whatever attempts there are, the client sees one answer."""

import time
from collections.abc import Callable
from typing import Protocol

from ..control.counters import Gap
from ..http.messages import Headers, Reply, Whole
from .events import error_event_of
from .heads import answer_headers
from .usage import Tokens, tokens_of_stream

# Where usage was not asked for, engines put it into an event without choices.
_NO_CHOICES = (b'"choices":[]', b'"choices": []')
_USAGE_BYTES = 64 * 2**10  # of the end of a stream, in which its usage stands


class Source(Protocol):
    """An attempt, as far as the outlet knows it."""

    status: int
    headers: Headers

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read again."""

    def stop(self, kind: str, reason: str) -> None:
        """End at once."""


class Continuation(Protocol):
    """Turns the events of a continuing worker into those that follow on what the client has."""

    def feed(self, events: bytes) -> bytes:
        """What the client gets of whole events; possibly nothing."""


class Outlet:
    """Where attempts write.

    Args:
        mark: adds to an answer's headers what every answer carries.
        hides_usage: the event with the usage was asked for by the relay, not by the client.
        gaps: of the events are counted here.
    """

    def __init__(
        self, reply: Reply, mark: Callable[[Headers], None], gaps: Gap, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.status = 0  # of what was sent; 0: nothing yet
        self.began = False  # a head was given to the client, and perhaps more
        self.is_events = False
        self.hides_usage = False
        self.sent: list[bytes] = []  # events that the client has got
        self.rivals: list[Source] = []  # attempts of which the first to claim the outlet gets it
        self.continuation: Continuation | None = None
        self._reply, self._mark, self._gaps, self._clock = reply, mark, gaps, clock
        self._usage_event = b""
        self._last = 0.0
        self._is_over = False

    def claim(self, source: Source) -> bool:
        """Whether the client gets its answer from `source`; its rivals end."""
        rivals, self.rivals = self.rivals, []
        for rival in rivals:
            if rival is not source:
                rival.stop("rival", "another worker was faster")
        return True

    def begin(self, source: Source, worker: str, *, events: bool) -> None:
        """Begin the answer with the source's head; nothing if it has begun already."""
        if self.began:
            return
        self.began, self.is_events, self.status = True, events, source.status
        self._reply.begin(source.status, self._headers(source.headers, worker))

    def events(self, source: Source, whole: bytes) -> None:
        """Send whole events."""
        if self.continuation is not None:
            whole = self.continuation.feed(whole)
        if self.hides_usage and b'"usage"' in whole and any(mark in whole for mark in _NO_CHOICES):
            whole = self._without_usage(whole)
        if not whole:
            return
        now = self._clock()
        if self._last:
            self._gaps.observe(now - self._last)
        self._last = now
        self.sent.append(whole)
        if not self._reply.write(whole):
            self._wait_for_client(source)

    def raw(self, source: Source, data: bytes) -> None:
        """Send some of a body that is no stream of events."""
        if not self._reply.write(data):
            self._wait_for_client(source)

    def whole(self, status: int, headers: Headers, worker: str, body: bytes) -> None:
        """Send a worker's answer in one piece."""
        self._is_over, self.status = True, status
        self._reply.whole(Whole(status, body, self._headers(headers, worker)))

    def end(self) -> None:
        """The answer is complete."""
        self._is_over = True
        self._reply.end()

    def fail(self, answer: Whole) -> None:
        """Say that there is no answer, or no more of it: by the last event of a stream, or by breaking a body off."""
        if self._is_over:
            return
        self._is_over = True
        if not self.began:
            self.status = answer.status
            self._mark(answer.headers)
            self._reply.whole(answer)
        elif self.is_events:
            self._reply.write(error_event_of(answer.body))
            self._reply.end()
        else:
            self._reply.abort()

    def is_complete(self) -> bool:
        """Whether the events that were sent end an answer. Only of streams that have such an end: chat, completions."""
        end = b"".join(self.sent[-2:])
        return b"[DONE]" in end[-64:]

    def tokens(self) -> Tokens | None:
        """What the stream said of its usage."""
        if self._usage_event:
            return tokens_of_stream(self._usage_event)
        return tokens_of_stream(b"".join(self.sent[-3:])[-_USAGE_BYTES:])

    def _headers(self, headers: Headers, worker: str) -> Headers:
        kept = answer_headers(headers)
        kept.append((b"x-slurminfer-worker", worker.encode()))
        self._mark(kept)
        return kept

    def _without_usage(self, whole: bytes) -> bytes:
        kept = []
        for event in whole.split(b"\n\n"):
            if b'"usage"' in event and any(mark in event for mark in _NO_CHOICES):
                self._usage_event = event
            else:
                kept.append(event)
        return b"\n\n".join(kept)

    def _wait_for_client(self, source: Source) -> None:
        source.pause()
        self._reply.on_writable = source.resume
