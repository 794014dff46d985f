"""One end of the channel between the supervisor and a relay: messages over a Unix socket pair.

A message is msgpack (messages.py) after its length, 4 bytes, big-endian. An end whose peer does not read keeps the
latest of the messages that stand for a whole state, and a bounded number of others; it never waits.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

from ...core.errors import RouterError
from .messages import BlamedRequests, Certificates, FromRelay, Report, Tenants, ToRelay, View

MOST_BYTES = 256 << 20  # of one message: a View of 10,000 workers takes 8 MiB
_MOST_WAITING = 1000  # messages that stand for no whole state; the oldest are dropped
_HIGH_WATER = 1 << 20  # bytes that the socket has not taken
_LENGTH_BYTES = 4
_STATES = (View, Tenants, Certificates, BlamedRequests, Report)  # a later one says all that an earlier one has said

Incoming = TypeVar("Incoming")


class ChannelError(RouterError):
    """What came over the channel is no message."""


class Channel(asyncio.Protocol, Generic[Incoming]):
    """One end. `receive` is called for each message; `lost` once, when the channel has ended, with what was wrong."""

    def __init__(
        self,
        decoder: "msgspec.msgpack.Decoder[Incoming]",
        receive: Callable[[Incoming], None],
        lost: Callable[[Exception | None], None],
    ) -> None:
        self._decoder, self._receive, self._lost = decoder, receive, lost
        self._encoder = msgspec.msgpack.Encoder()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._states: dict[type, Any] = {}  # that wait for the peer to read
        self._waiting: deque[Any] = deque(maxlen=_MOST_WAITING)
        self._error: ChannelError | None = None
        self.behind_since: float | None = None  # time of the event loop since when the peer does not read

    def send(self, message: ToRelay | FromRelay) -> None:
        """Send a message as soon as the peer reads; it is lost where the channel has ended."""
        if self._transport is None:
            return
        if self.behind_since is None:
            self._write(message)
        elif isinstance(message, _STATES):
            self._states[type(message)] = message
        else:
            self._waiting.append(message)

    def close(self) -> None:
        """End the channel once what has been sent is with the peer."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the channel at once."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        if self._error is not None:
            return
        self._buffer += data
        try:
            self._take_messages()
        except ChannelError as error:
            self._error = error
            self._buffer.clear()
            self.abort()

    def pause_writing(self) -> None:
        self.behind_since = asyncio.get_running_loop().time()

    def resume_writing(self) -> None:
        self.behind_since = None
        while self.behind_since is None and (self._states or self._waiting):
            self._write(self._states.pop(next(iter(self._states))) if self._states else self._waiting.popleft())

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lost(self._error or error)

    def _write(self, message: ToRelay | FromRelay) -> None:
        assert self._transport is not None
        data = self._encoder.encode(message)
        self._transport.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)

    def _take_messages(self) -> None:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= _LENGTH_BYTES:
            length = int.from_bytes(buffer[at : at + _LENGTH_BYTES], "big")
            if length > MOST_BYTES:
                raise ChannelError(f"a message of {length} bytes, expected {MOST_BYTES} at most")
            start, end = at + _LENGTH_BYTES, at + _LENGTH_BYTES + length
            if len(buffer) < end:
                break
            at = end
            try:
                message = self._decoder.decode(bytes(buffer[start:end]))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ChannelError(f"a message that cannot be read: {error}") from error
            self._receive(message)
        del buffer[:at]


async def supervisor_end(
    sock: socket.socket, receive: Callable[[FromRelay], None], lost: Callable[[Exception | None], None]
) -> Channel[FromRelay]:
    """The supervisor's end, which owns `sock` from now on."""
    return await _open(sock, Channel(msgspec.msgpack.Decoder(FromRelay), receive, lost))


async def relay_end(
    sock: socket.socket, receive: Callable[[ToRelay], None], lost: Callable[[Exception | None], None]
) -> Channel[ToRelay]:
    """The relay's end, which owns `sock` from now on."""
    return await _open(sock, Channel(msgspec.msgpack.Decoder(ToRelay), receive, lost))


async def _open(sock: socket.socket, channel: Channel[Incoming]) -> Channel[Incoming]:
    sock.setblocking(False)
    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=sock)
    return channel
