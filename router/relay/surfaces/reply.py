"""The reply to a translated request: takes the answer of chat completions, gives the client that of its own API."""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from ...http.messages import Headers, Reply, Whole
from ..answers import JSON, failure
from .translation import Translation, TranslationError

MOST_BYTES = 64 * 2**20  # of an answer in one piece


class TranslatingReply:
    """Implements `messages.Reply`.

    Args:
        reply: the client's.
        translation: of its request.
    """

    def __init__(self, reply: Reply, translation: Translation) -> None:
        self._reply, self._translation = reply, translation
        self._is_stream = True
        self._parts: list[bytes] = []  # of an answer in one piece that comes bit by bit
        self._size = 0

    @property
    def began(self) -> bool:
        """Whether anything has been given to the client's socket."""
        return self._reply.began

    @property
    def on_writable(self) -> Callable[[], None] | None:
        """Called when `write` may go on after it has said False."""
        return self._reply.on_writable

    @on_writable.setter
    def on_writable(self, call: Callable[[], None] | None) -> None:
        self._reply.on_writable = call

    @property
    def on_lost(self) -> Callable[[], object] | None:
        """Called when the client hangs up before the answer's end."""
        return self._reply.on_lost

    @on_lost.setter
    def on_lost(self, call: Callable[[], object] | None) -> None:
        self._reply.on_lost = call

    def whole(self, answer: Whole) -> None:
        """Send an answer in one piece. The client's own reply gives errors the shape of its API."""
        self._reply.whole(answer if answer.status >= 400 else self._translated(answer))

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        """Begin a stream of events. Anything else is held until it is complete."""
        self._is_stream = any(name == b"content-type" and b"event-stream" in value for name, value in headers)
        if self._is_stream:
            self._reply.begin(status, headers)

    def write(self, data: bytes) -> bool:
        """Send what whole events are in the client's API. False: the client is behind."""
        if not self._is_stream:
            self._hold(data)
            return True
        return self._reply.write(self._translation.events(data))

    def end(self) -> None:
        """The answer is complete."""
        if self._is_stream:
            self._reply.write(self._translation.end())
            self._reply.end()
        else:
            self.whole(Whole(200, b"".join(self._parts), [JSON]))

    def abort(self) -> None:
        """Break the connection: the only way left to say that this is not the whole."""
        self._reply.abort()

    def hold(self, count: int) -> None:
        """Count more bytes as held for the request. Raises BodyError."""
        self._reply.hold(count)

    def run(self, answering: Coroutine[Any, Any, None], ended: Callable[[], None] | None = None) -> None:
        """Let a coroutine answer. It is cancelled when the client hangs up."""
        self._reply.run(answering, ended)

    def _hold(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MOST_BYTES:
            self._parts.clear()
            self._reply.whole(failure(502, f"the worker's answer has more than {MOST_BYTES} bytes"))
        else:
            self._parts.append(data)

    def _translated(self, answer: Whole) -> Whole:
        try:
            found = msgspec.json.decode(answer.body, type=dict[str, Any])
        except (ValueError, RecursionError):
            return failure(502, "the worker's answer is no JSON object")
        try:
            body = msgspec.json.encode(self._translation.whole(found))
        except TranslationError as error:
            return failure(502, f"the worker's answer cannot be translated: {error.message}")
        return Whole(answer.status, body, answer.headers, answer.close)
