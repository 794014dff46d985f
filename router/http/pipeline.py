"""The complete requests of a connection, answered one after the other."""

from collections import deque
from typing import Protocol

from ...core.net.compression import BodyError, decompressed
from .bodies import Held
from .messages import Head, Request, Whole
from .refusals import refusal
from .reply import ClientReply
from .reply import Line as ReplyLine

# Requests behind the one that is being answered: the first number stops reading. Those that have come in one piece with
# it may be more, up to the second number; then the connection ends after these.
_PIPELINED, _MOST_PIPELINED = 8, 128


class Line(ReplyLine, Protocol):
    """The connection, as its pipeline sees it."""

    def began(self) -> None:
        """A request of a client that is trusted is being answered."""

    def hold(self, holds: bool) -> None:
        """Read no more, or go on."""


class Pipeline:
    """What is being answered, and what waits for its turn."""

    __slots__ = ("_line", "_waiting", "current", "is_full", "pumping")

    def __init__(self, line: Line) -> None:
        self._line = line
        self._waiting: deque[tuple[Head | Whole, ClientReply]] = deque()
        self.current: ClientReply | None = None
        self.pumping = False
        self.is_full = False  # so many requests wait that no more may be read

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being answered and nothing waits."""
        return self.current is None and not self._waiting

    def end_after_last(self) -> None:
        """The answer to the last request that waits is the connection's last."""
        self._waiting[-1][1].keep = False

    def put(self, item: Head | Whole, reply: ClientReply) -> None:
        """Answer a request, or send what is its answer already, when it is its turn."""
        if self.current is None and not self._waiting:
            self._begin(item, reply)
            return
        self._waiting.append((item, reply))
        if len(self._waiting) >= _PIPELINED:
            self.is_full = len(self._waiting) >= _MOST_PIPELINED
            self._line.hold(True)

    def pump(self) -> None:
        """Answer the next request, if there is any and the client reads; then the next one, if that took no time."""
        line = self._line
        self.pumping = True
        while self._waiting and self.current is None and line.writable and not line.transport.is_closing():
            self._begin(*self._waiting.popleft())
        self.pumping = False
        self.is_full = len(self._waiting) >= _MOST_PIPELINED
        if len(self._waiting) < _PIPELINED:
            line.hold(False)

    def drop_waiting(self) -> None:
        """What waits gets no answer."""
        while self._waiting:
            self._waiting.pop()[1].lose()

    def lose(self) -> None:
        """The client is gone."""
        current, self.current = self.current, None
        replies = [reply for _, reply in self._waiting]
        self._waiting.clear()
        if current is not None:
            current.lose()
        for reply in replies:
            reply.lose()

    def _begin(self, item: Head | Whole, reply: ClientReply) -> None:
        self.current = reply
        if isinstance(item, Whole):
            reply.whole(item)
            return
        self._line.began()
        assert reply.held is not None
        if reply.encoding == "identity":
            self._handle(Request(item, reply.held.joined()), reply)
        else:
            task = self._line.server.loop.create_task(self._decompress(item, reply, reply.held))
            reply.on_lost = task.cancel

    def _handle(self, request: Request, reply: ClientReply) -> None:
        try:
            self._line.server.handler.handle(request, reply)
        except Exception:
            reply.log_failure()
            reply.fail()

    async def _decompress(self, head: Head, reply: ClientReply, held: Held) -> None:
        most = self._line.server.bodies.limits.each
        try:
            body = await decompressed(held.joined(), reply.encoding, most, held.take)
        except BodyError as error:
            reply.whole(refusal(error.status, error.message))
        except Exception:
            reply.log_failure()
            reply.fail()
        else:
            self._handle(Request(head, body), reply)
