"""The request that is being received: admitted or refused by its head, then its body taken in."""

from typing import Protocol

from ...core.net.compression import BodyError, encoding_named
from .bodies import Held
from .body_stream import BodyStream, require_length
from .heads import has_content
from .messages import Head, Streamed, Whole
from .pipeline import Line as PipelineLine
from .pipeline import Pipeline
from .refusals import refusal
from .reply import ClientReply
from .state import Client

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Line(PipelineLine, Client, Protocol):
    """The connection, as the request that comes by it sees it."""

    def trust(self) -> None:
        """The client has shown its key."""

    def malformed(self, what: str) -> None:
        """The client has sent what is no HTTP."""


class Incoming:
    """A request whose head has come, until its body is complete. Then it goes to the pipeline."""

    __slots__ = ("_line", "_pipeline", "_reply", "head", "stream", "waits_to_continue")

    def __init__(self, line: Line, pipeline: Pipeline) -> None:
        self._line, self._pipeline = line, pipeline
        self.head: Head | None = None  # of the request whose body is being received
        self.stream: BodyStream | None = None  # that body, if it is given on as it comes, to who answers already
        self._reply: ClientReply | None = None  # for that request
        self.waits_to_continue = False  # the client sends no body before it is asked to

    @property
    def size(self) -> int | None:
        """Bytes that have come of the body; None while none is being received."""
        if self.stream is not None:
            return self.stream.size
        held = self._reply.held if self._reply is not None else None
        return None if held is None else held.size

    def begin(self, head: Head, *, keep: bool, old: bool) -> Whole | None:
        """Take a request in by its head. A refusal: nothing that follows may be read, and `refuse` is to be called.

        Args:
            head: what has come.
            keep: whether the client wants to use the connection again.
            old: whether the client knows HTTP/1.0 only.
        """
        line = self._line
        reply = self._reply = ClientReply(line, head, keep=keep, old=old)
        line.server.idle.drop(line)
        answer = self._admit(head, reply)
        if answer is not None:
            if answer.close or has_content(head.fields):
                return answer
            self._reply = None
            self._pipeline.put(answer, reply)
            return None
        waits = b"expect" in head.fields and not old
        if head.streamed is not None:
            return self._begin_stream(head, reply, head.streamed, waits)
        self.head = head
        reply.held = Held(line.server.bodies, head.tenant)
        if waits:
            self.waits_to_continue = True
            self.ask_to_continue()
        return None

    def add(self, data: bytes) -> None:
        """Take some of the body. Raises BodyError."""
        if self.stream is not None:
            self.stream.add(data)
            return
        assert self._reply is not None and self._reply.held is not None
        self._reply.held.add(data)

    def complete(self, *, keep: bool) -> None:
        """The request is complete. `keep`: the client wants to use the connection after a body that is a `stream`."""
        head, reply = self.head, self._reply
        if head is None or reply is None:
            return
        self.head = self._reply = None
        self.waits_to_continue = False
        if self.stream is None:
            self._pipeline.put(head, reply)
        else:
            stream, self.stream = self.stream, None
            reply.keep = keep
            stream.end()

    def refuse(self, answer: Whole, malformed: str | None = None) -> None:
        """Answer what is being received, after what came before. The parser has stopped."""
        line = self._line
        if malformed is not None:
            line.malformed(malformed)
        reply = self._reply or ClientReply(line, None)
        if reply.held is not None:
            reply.held.release()
        reply.keep = False
        self.head = self._reply = None
        line.server.idle.drop(line)
        if reply is self._pipeline.current:
            _refuse_in_mid_stream(answer, reply)
        else:
            self._pipeline.put(answer, reply)

    def ask_to_continue(self) -> None:
        """Ask a client that waits for it (RFC 9110, 10.1.1) to send its body, when it is its turn."""
        if self.waits_to_continue and self._pipeline.is_idle:
            self.waits_to_continue = False
            self._line.transport.write(_CONTINUE)

    def abandon(self) -> None:
        """Nobody wants the rest of the body."""
        self.head = self._reply = None
        if self.stream is not None:
            stream, self.stream = self.stream, None
            stream.lose()

    def lose(self) -> ClientReply | None:
        """The client is gone. The reply to its request, which may be the current one."""
        reply = self._reply
        self.abandon()
        return reply

    def _admit(self, head: Head, reply: ClientReply) -> Whole | None:
        """What to answer at once, by the head alone: None to go on."""
        server, fields = self._line.server, head.fields
        answer = server.handler.admit(head)
        if head.tenant is not None:
            self._line.trust()
        if answer is not None:
            return answer
        try:
            encoding = fields.get(b"content-encoding")
            if encoding is not None:
                reply.encoding = encoding_named(encoding.decode("latin-1"))
            size = fields.get(b"content-length")
            if head.streamed is not None:
                if reply.encoding != "identity":
                    return refusal(415, "Content-Encoding: expected none for a body of this size")
                require_length(int(size or 0), head.streamed.most)
            elif size is not None:
                server.bodies.require(int(size), head.tenant)
        except BodyError as error:
            return refusal(error.status, error.message)
        if b"expect" in fields and fields[b"expect"].lower() != b"100-continue":
            return refusal(417, "Expect: expected 100-continue")
        return None

    def _begin_stream(self, head: Head, reply: ClientReply, streamed: Streamed, waits: bool) -> Whole | None:
        """Let the handler have a body as it comes."""
        line = self._line
        if not self._pipeline.is_idle:
            return refusal(400, "a request with a body like this one cannot be pipelined: send it alone")
        reply.keep = False  # until the body is complete
        self.head = head
        self._pipeline.current = reply
        self.stream = BodyStream(streamed.most, line.hold)
        if waits:
            line.transport.write(_CONTINUE)
        line.began()
        try:
            streamed.receive(head, self.stream, reply)
        except Exception:
            reply.log_failure()
            reply.fail()
        return None


def _refuse_in_mid_stream(answer: Whole, reply: ClientReply) -> None:
    """Refuse a request that is being answered already, but for the rest of its body."""
    on_lost = reply.on_lost
    if reply.began:
        reply.abort()
    else:
        reply.whole(answer)
    if on_lost is not None:
        on_lost()
