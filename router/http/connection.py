"""A client's connection: when it is read and closed. What comes by it is answered by its pipeline."""

import asyncio
from contextlib import suppress
from typing import cast

from .incoming import Incoming
from .parser import RequestParser
from .pipeline import Pipeline
from .refusals import refusal
from .reply import ClientReply
from .state import ServerState

_MOST_UNSENT = 64 * 1024  # bytes that a client has not read, from which on its answer's source is paused


class Connection(asyncio.Protocol):
    """One connection of a client. A `Guarded`."""

    __slots__ = (
        "__weakref__", "_incoming", "_lost", "_parser", "_paused", "_pipeline", "_reading", "_unsent", "busy",
        "discarded", "guard", "server", "since", "source", "transport", "trusted", "writable",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, server: ServerState, *, private: bool = False) -> None:
        """`private`: whoever connects has proven to be one of our own programs."""
        self.server = server
        self.guard = None if private else server.guard
        self.source, self.since, self.discarded = "", 0, 0
        self.trusted = self.busy = False
        self.writable = True
        self._unsent = 0  # bytes that the client had not read when that was looked at last
        self._lost = self._paused = False
        self._reading = False  # a body has not come in one piece with its head

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection in."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=_MOST_UNSENT)
        peer = transport.get_extra_info("peername")
        self.source = peer[0] if isinstance(peer, tuple) else ""
        self._pipeline = Pipeline(self)
        self._incoming = Incoming(self, self._pipeline)
        self._parser = RequestParser(self._incoming, self._pipeline, self.server.limits, self.source)
        self.server.opened(self)
        if self.guard is not None:
            self.guard.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        """End what is being answered, and forget the rest."""
        self._lost = True
        if self.guard is not None:
            self.guard.lost(self)
        self.server.lost(self)
        unanswered = self._incoming.lose()
        self._pipeline.lose()
        if unanswered is not None:
            unanswered.lose()
        self._parser.close()
        # They have this connection, and it the buffers of TLS (256 KiB), which should not wait for garbage collection.
        del self._parser, self._incoming, self._pipeline

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        if not self.busy and self.guard is not None and not self.guard.read(self, len(data)):
            self.cut()
            return
        if self._parser.stopped:
            return
        self._parser.feed(data)
        if self._incoming.head is not None:
            self._reading = True
            self.server.reading.put(self)
        elif self._reading:
            self._reading = False
            self.server.reading.drop(self)

    def eof_received(self) -> bool:
        """A client that ends its side has hung up."""
        if self._pipeline.current is not None:
            self.cut()
        return False

    def pause_writing(self) -> None:
        """The client does not read."""
        self.writable = False
        self._unsent = self.transport.get_write_buffer_size()
        self.server.unread.put(self)

    def resume_writing(self) -> None:
        """The client has read."""
        self.writable = True
        self.server.unread.drop(self)
        current = self._pipeline.current
        if current is None:
            self._go_on()
        elif current.on_writable is not None:
            current.on_writable()

    # Called by replies and by what receives and answers requests.

    def answered(self, reply: ClientReply) -> None:
        """The current answer has been written: go on with the next request, or end."""
        pipeline, incoming = self._pipeline, self._incoming
        pipeline.current = None
        if incoming.stream is not None:
            incoming.abandon()
            self._parser.stop()
        if not reply.keep:
            self._end()
        elif not pipeline.pumping:
            self._go_on()

    def began(self) -> None:
        """A request of a client that is trusted is being received or answered."""
        if self.guard is not None and self.trusted:
            self.guard.began(self)

    def trust(self) -> None:
        """The client has shown its key."""
        if self.guard is not None and not self.busy:
            self.guard.began(self)

    def malformed(self, what: str) -> None:
        """The client has sent what is no HTTP."""
        if self.guard is not None:
            self.guard.malformed(self.source, what)

    def hold(self, holds: bool) -> None:
        """Read no more, or go on, as requests or a body have come faster than they are taken, or no longer do."""
        if holds == self._paused or self.transport.is_closing():
            return
        self._paused = holds
        if holds:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # Called by the server and the guard.

    def cut(self) -> None:
        """Close the connection at once."""
        if not self._lost:
            self.transport.abort()

    def close_if_idle(self) -> None:
        """Close the connection unless a request is being received or answered."""
        if self._pipeline.current is None and self._incoming.head is None and not self._parser.stopped:
            self.transport.close()

    def give_up(self) -> None:
        """Nothing has come for too long, in the middle of a body."""
        if self._paused:  # this server's own doing
            self.server.reading.put(self)
        else:
            self._parser.refuse(refusal(408, "no more of the body came in time"))

    def end_idle(self) -> None:
        """Nothing has come for too long between two requests, or an answer that is complete was not read."""
        if self.writable:
            self.cut()
        else:  # `check_reading` ends it
            self.server.idle.put(self)

    def check_reading(self) -> None:
        """Whether the client has read enough since this was looked at last, or else is in the way."""
        unsent = self.transport.get_write_buffer_size()
        if unsent > self._unsent - _MOST_UNSENT:
            self.cut()
        else:
            self._unsent = unsent
            self.server.unread.put(self)

    def stop_lingering(self) -> None:
        """The client has had the time to read the last answer."""
        if self.transport.get_write_buffer_size():
            self.server.idle.put(self)
            self.transport.close()
        else:
            self.cut()

    # Between two requests, and after the last.

    def _go_on(self) -> None:
        """Answer the next request; if there is none, ask for it or wait."""
        self._pipeline.pump()
        if not self._pipeline.is_idle or self.transport.is_closing():
            return
        self._incoming.ask_to_continue()
        if self._incoming.head is None and not self._parser.stopped:
            if self.guard is not None:
                self.guard.finished(self)
            self.server.rest(self)

    def _end(self) -> None:
        """Close when the last answer has been sent. A client that still sends gets time to read it first.

        Closing with unread bytes would reset the connection, and the client might never see the answer (RFC 9112, 9.6).
        """
        if self.transport.is_closing():
            return
        self.server.idle.drop(self)
        if not self._parser.stopped and self._incoming.head is None and self._pipeline.is_idle:
            self.server.idle.put(self)  # in case the client does not read
            self.transport.close()
            return
        self._parser.stop()
        self._incoming.waits_to_continue = False
        self._pipeline.drop_waiting()
        if self.transport.can_write_eof():
            with suppress(OSError):  # the client has reset the connection, and nobody has told us yet
                self.transport.write_eof()
        self.hold(False)
        self.server.lingering.put(self)
