"""The client's side of one request: whatever attempts there are, the client sees one answer."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from ..control.counters import Gap
from ..http.heads import answer_headers
from ..http.messages import Headers, Reply, Whole
from .stream.envelope import MESSAGES, OTHER
from .stream.events import (
    error_event,
    is_end,
    stream_error,
    usage_of,
    usages_together,
    without_token_ids,
    without_usage,
)  # fmt: skip
from .stream.stitcher import Stitcher, UsageOnly
from .stream.transcript import Transcript
from .stream.usage import tokens_from
from .workers.upstream import Upstream

_MOST_READ = 2**20  # bytes of a stream that are read to count its tokens, which takes 30 ms
_STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
_BARE_STREAM = (b"content-type", b"text/event-stream")
_COMMENT = b": no event yet\n\n"
_UTF8_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
_UNUSED = Transcript(0)  # of requests that do not stream; nothing is ever put into it


class Source(Protocol):
    """An attempt, as far as the outlet knows it."""

    status: int
    headers: Headers
    upstream: Upstream

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read again."""

    def stop(self, kind: str, reason: str) -> None:
        """End at once."""


class Outlet:
    """Where attempts write.

    Args:
        gaps: those between events are counted here.
        clock: seconds.
    """

    __slots__ = (
        "_before",
        "_clock",
        "_gaps",
        "_last",
        "_last_time",
        "_reply",
        "_usage",
        "began",
        "error",
        "hides_ids",
        "hides_usage",
        "is_events",
        "is_over",
        "kind",
        "rivals",
        "status",
        "stitcher",
        "transcript",
    )  # fmt: skip

    def __init__(self, reply: Reply, gaps: Gap, clock: Callable[[], float] = time.perf_counter) -> None:
        self.kind = OTHER
        self.hides_usage = self.hides_ids = False  # the relay has asked for them, the client has not
        self.status = 0  # of what was sent; 0: nothing yet
        self.began = self.is_over = self.is_events = False
        self.error: dict[str, Any] | None = None  # an error event that a worker has sent
        self.rivals: list[Source] = []  # attempts of which the first to claim the outlet gets it
        self.transcript = _UNUSED
        self.stitcher: Stitcher | UsageOnly | None = None
        self._reply, self._gaps, self._clock = reply, gaps, clock
        self._before = self._last = b""  # the last events that came, and those before them
        self._last_time = 0.0
        self._usage: dict[str, Any] | None = None  # of a stream whose events tell it bit by bit

    def claim(self, source: Source) -> None:
        """End the rivals of an attempt that has the first token."""
        if self.rivals:
            rivals, self.rivals = self.rivals, []
            for rival in rivals:
                if rival is not source:
                    rival.stop("rival", "another worker was faster")

    def begin(self, source: Source, *, events: bool) -> None:
        """Begin the answer with the source's head; nothing if it has begun already."""
        if not self.began:
            self.began, self.is_events, self.status = True, events, source.status
            if events and self.transcript is _UNUSED:  # a stream that nobody has asked for
                self.transcript = Transcript()
            headers = _headers(source.headers, source.upstream)
            self._reply.begin(source.status, _as_stream(headers) if events else headers)

    def comment(self, source: Source, comment: bytes) -> None:
        """Send a comment of a stream that has no event yet."""
        self.begin(source, events=True)
        self._reply.write(comment)

    def comment_of_ours(self) -> bool:
        """Send a comment while no event has come. False: one has, or the answer is over or of another form."""
        if self.is_over or self.has_told:
            return False
        if not self.began:
            self.began = self.is_events = True
            self.status = 200
            self._reply.begin(200, [_UTF8_STREAM, *_STREAM_HEADERS])
        self._reply.write(_COMMENT)
        return True

    @property
    def has_told(self) -> bool:
        """Whether the client has got some of the answer, and not only comments."""
        return self.began and not (self.is_events and self.transcript.size == 0)

    def events(self, source: Source, data: bytes) -> bool:
        """Send whole events. True: the answer is complete, although the source may go on."""
        stitcher = self.stitcher
        if stitcher is not None:
            data = stitcher.feed(data)
            if not data:
                return stitcher.finished
        self.begin(source, events=True)
        self.transcript.add(data)
        self._before, self._last = self._last, data
        if self.kind == MESSAGES and b'"usage"' in data:
            self._usage = usages_together(data, self._usage)
        if self.hides_ids:
            data = without_token_ids(data)
        if self.hides_usage:
            data = without_usage(data)
        now = self._clock()
        if self._last_time:
            self._gaps.observe(now - self._last_time)
        self._last_time = now
        if data and not self._reply.write(data):
            self._wait_for_client(source)
        return stitcher is not None and stitcher.finished

    def raw(self, source: Source, data: bytes) -> None:
        """Send some of a body that is no stream of events."""
        self._before, self._last = self._last, data
        if not self._reply.write(data):
            self._wait_for_client(source)

    def whole(self, source: Source, body: bytes) -> None:
        """Send a worker's answer in one piece."""
        self.is_over, self.status = True, source.status
        self._reply.whole(Whole(source.status, body, _headers(source.headers, source.upstream)))

    def end(self, last: bytes = b"") -> None:
        """The answer is complete, with these last events."""
        self.is_over = True
        if last:
            self._reply.write(last)
        self._reply.end()

    def fail(self, answer: Whole) -> None:
        """Say that there is no answer, or no more of it: by the last event of a stream, or by breaking a body off."""
        if self.is_over:
            return
        self.is_over = True
        if not self.began:
            self.status = answer.status
            self._reply.whole(answer)
        elif self.is_events:
            error = _error_of(answer)
            self._reply.write(stream_error(self.kind, error["message"], error["code"] or "server_error"))
            self._reply.end()
        else:
            self._reply.abort()

    def pass_error(self, source: Source) -> None:
        """End the stream with the error event that its worker has sent."""
        self.begin(source, events=True)
        self.end(error_event(self.error or {}))

    def is_complete(self) -> bool:
        """Whether the events that were sent end an answer, as far as its form is known."""
        return self.kind == OTHER or is_end(self.kind, self._last)

    def tokens_sent(self) -> int:
        """Tokens of a stream that the client has got, as far as it has come. An event without a known form is one."""
        if self.transcript is _UNUSED or not self.transcript.size:
            return 0
        if self.transcript.size > _MOST_READ:  # others would wait while it is read
            told = tokens_from(self.usage())
            return max(told.generated if told is not None else 0, self.transcript.events)
        story = self.transcript.story()
        counted = sum(max(said.tokens, len(said.token_ids)) for said in story.choices.values())
        return max(counted, story.events if story.strange else 0)

    def usage(self) -> dict[str, Any] | None:
        """What the stream said of its token counts."""
        return self._usage if self.is_events and self.kind == MESSAGES else usage_of(self._before + self._last)

    def _wait_for_client(self, source: Source) -> None:
        source.pause()
        self._reply.on_writable = source.resume


def _error_of(answer: Whole) -> dict[str, Any]:
    """The error that an answer says, in OpenAI's shape, be it of a worker that says it in another one."""
    try:
        error = msgspec.json.decode(answer.body)["error"]
        return {"message": str(error["message"]), "code": error.get("code")}
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return {
            "message": answer.body[:1000].decode(errors="replace") or f"the worker says {answer.status}",
            "code": None,
        }


def _as_stream(headers: Headers) -> Headers:
    """Headers of a stream with what lets it pass proxies and clients as it comes, whether its engine says so or not.

    Proxies such as nginx hold answers back until a buffer is full, and `requests` takes text without a charset for
    Latin-1.
    """
    names = {name for name, _ in headers}
    added = [header for header in _STREAM_HEADERS if header[0] not in names]
    return [_UTF8_STREAM if header == _BARE_STREAM else header for header in headers] + added


def _headers(headers: Headers, upstream: Upstream) -> Headers:
    kept = answer_headers(headers)
    kept.append(upstream.header)
    return kept
