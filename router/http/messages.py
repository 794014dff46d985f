"""What the two sides of the relay say to each other of HTTP: heads, bodies, and where bytes go."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

# Names in lower case, in the order in which they came.
Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Head:
    """The head of a client's request."""

    method: bytes
    target: bytes  # path and query, as they came
    path: str  # decoded, without the query
    headers: Headers
    peer: str  # the client's address; "" for a Unix socket
    private: bool = False  # came through the port for our own commands, whose other end has proven itself
    id: str = ""  # the client's X-Request-Id or a new one; every answer carries it
    tenant: Any = None  # set by `Handler.admit`; a connection without one is closed when there are too many
    answer_headers: Headers = field(default_factory=list)  # set by `Handler.admit`: what every answer carries (CORS)

    def get(self, name: bytes) -> bytes | None:
        """The first header of that lower-case name."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(slots=True)
class Request:
    """A complete request: the body is decompressed and within its bound."""

    head: Head
    body: bytes


@dataclass(slots=True)
class Whole:
    """An answer in one piece. `close`: the connection ends after it, because the rest of the body is not read."""

    status: int
    body: bytes
    headers: Headers = field(default_factory=list)
    close: bool = False


class Reply(Protocol):
    """Where the answer to one request goes. After `whole`, `end` or `abort`, or without its client, it ignores all.

    While nothing was given to the client's socket (`began`), `begin` or `whole` may replace what `begin` has said.
    """

    began: bool  # whether anything has been given to the client's socket
    on_writable: Callable[[], None] | None  # called when `write` may go on after it has said False

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


class Handler(Protocol):
    """What a server does with requests. `handle` is cancelled when its client hangs up before the answer's end.

    What `handle` raises, or a return without an answer, is answered with 500, or breaks an answer that has begun.
    """

    def admit(self, head: Head) -> Whole | None:
        """Decide by the head alone, before anything of the body is asked for: a refusal, or None to go on."""

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer the request."""


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

    async def send(self, head: bytes, body: bytes, sink: Sink) -> Flow:
        """Send a request on a free or a new connection. `head` is complete but for the blank line.

        Raises ConnectError.
        """

    def close(self) -> None:
        """Close the idle connections, and the others as they become idle."""
