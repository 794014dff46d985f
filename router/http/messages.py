"""What the two sides of the relay say to each other of HTTP: heads, bodies, and where bytes go."""

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

# Names in lower case, in the order in which they came.
Headers = list[tuple[bytes, bytes]]


class Head(msgspec.Struct):
    """The head of a client's request."""

    method: bytes
    target: bytes  # path and query, as they came
    path: str  # decoded, without the query
    headers: Headers
    fields: dict[bytes, bytes]  # the same; the last one where a name occurs twice
    peer: str  # the client's address; "" for a Unix socket
    id: str = ""  # the client's X-Request-Id or a new one; every answer carries it
    tenant: Any = None  # set by `Handler.admit`; a connection without one is closed when there are too many
    is_generation: bool = False  # set by `Handler.admit`: it is for a worker
    streamed: Any = None  # set by `Handler.admit`, a Streamed: the body is given on as it comes
    answer_headers: Headers = []  # set by `Handler.admit`: what every answer carries (CORS)
    answer_lines: bytes = b""  # the same, as complete lines of the head (limits)
    reshape: Any = None  # set by `Handler.admit`, from Whole to Whole: gives an error answer the shape of its API
    asked_path: str = ""  # the client's, where this head is that of the chat request that stands for its request

    @property
    def public_path(self) -> str:
        """The path that the client has asked for."""
        return self.asked_path or self.path


class Request(msgspec.Struct):
    """A complete request: the body is decompressed and within its bound."""

    head: Head
    body: bytes


class Whole(msgspec.Struct):
    """An answer in one piece. `close`: the connection ends after it, because the rest of the body is not read."""

    status: int
    body: bytes
    headers: Headers = []
    close: bool = False


class Reply(Protocol):
    """Where the answer to one request goes. After `whole`, `end` or `abort`, or without its client, it ignores all.

    While nothing was given to the client's socket (`began`), `begin` or `whole` may replace what `begin` has said.
    """

    on_writable: Callable[[], None] | None  # called when `write` may go on after it has said False
    on_lost: Callable[[], object] | None  # called when the client hangs up before the answer's end

    @property
    def began(self) -> bool:
        """Whether anything has been given to the client's socket."""

    def whole(self, answer: Whole) -> None:
        """Send an answer in one piece."""

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        """Begin an answer of `length` bytes, or of unknown length. The head leaves with the first bytes.

        Raises ValueError for a header with a line break. A body that ends before its length breaks the connection.
        """

    def write(self, data: bytes) -> bool:
        """Send some of the body. False: the client is behind, pause the source until `on_writable`."""

    def end(self) -> None:
        """The body is complete."""

    def abort(self) -> None:
        """Break the connection: the only way left to say that this is not the whole."""

    def hold(self, count: int) -> None:
        """Count more bytes as held for the request, as its body is, until the answer's end. Raises BodyError."""

    def run(self, answering: Coroutine[Any, Any, None], ended: Callable[[], None] | None = None) -> None:
        """Let a coroutine answer. It is cancelled when the client hangs up.

        What it raises, or a return without an answer, is answered with 500, or breaks an answer that has begun.
        `ended` is called when it is over, even if it never began.
        """


class Body(Protocol):
    """The body of a request that is given to the handler as it comes. The client waits while little of it is read."""

    async def read(self) -> bytes:
        """Some more of it; empty at the end. Raises BodyLostError where the end does not come."""


class Streamed(msgspec.Struct, frozen=True):
    """That a request's body is not held until it is complete, and who gets the request instead of `Handler.handle`.

    An answer before the body's end ends the connection.
    """

    most: int  # bytes of the body
    receive: Callable[[Head, Body, "Reply"], None]


class BodyLostError(Exception):
    """The rest of a body does not come, or is not taken any more. Whoever reads it need not answer."""


class Handler(Protocol):
    """What a server does with requests. What it raises is answered with 500."""

    def admit(self, head: Head) -> Whole | None:
        """Decide by the head alone, before anything of the body is asked for: a refusal, or None to go on."""

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer the request, now or later. What has to wait may be a coroutine that `reply` runs."""


class Sink(Protocol):
    """Where a worker's answer goes. Called from the connection's protocol; must not block or raise."""

    def on_head(self, status: int, headers: Headers) -> None:
        """The head is complete."""

    def on_data(self, data: bytes) -> None:
        """Some of the body, without its framing."""

    def on_end(self) -> None:
        """The body is complete."""

    def on_lost(self, error: Exception) -> None:
        """The answer broke off, or is no HTTP. Nothing follows."""


class Flow(Protocol):
    """One request at one worker, seen by whoever sent it."""

    def pause(self) -> None:
        """Read no more from the worker for now."""

    def resume(self) -> None:
        """Read again."""

    def abort(self) -> None:
        """Close the connection at once, so that the engine stops computing. The sink hears nothing more."""


class ConnectError(Exception):
    """No connection to a worker could be made: nothing was sent. `own_fault`: this process has no descriptors left."""

    def __init__(self, reason: str, *, own_fault: bool = False) -> None:
        self.own_fault = own_fault
        super().__init__(reason)


class AnswerLostError(Exception):
    """A worker's answer broke off, or is no HTTP. What a Sink's `on_lost` is told, or a ConnectError."""


class NoAnswerError(AnswerLostError):
    """What a worker has sent is no HTTP."""


class Pool(Protocol):
    """The connections to one life of a worker."""

    def try_send(self, head: bytes, body: bytes, sink: Sink) -> Flow | None:
        """Send a request at once on a free connection; None, with nothing sent, if there is none.

        `head` is complete but for the blank line.
        """

    async def send(self, head: bytes, body: bytes, sink: Sink) -> Flow:
        """Send a request on a free or a new connection, like `try_send`. Raises ConnectError."""

    def close(self) -> None:
        """Close the idle connections, and the others as they become idle."""
