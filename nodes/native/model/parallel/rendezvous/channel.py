"""Messages over a connection whose two ends have proven themselves, see handshake.py.

Each is its length, an HMAC over its number in the stream and its content, and the content. The key is that of this
connection and direction, so nobody can add, change, repeat, leave out or reorder messages. They are not encrypted.
"""

import hmac
import socket
import struct
import threading
from collections.abc import Iterator

_MAC_BYTES = 32
_LENGTH, _NUMBER = struct.Struct("!I"), struct.Struct("!Q")
_HEAD_BYTES = _LENGTH.size + _MAC_BYTES
_READ_BYTES = 1 << 16


class ChannelError(Exception):
    """A message that the other end has not sent."""


class Channel:
    """One end of such a connection. `send` may be called by several threads."""

    def __init__(self, connection: socket.socket, sending: bytes, receiving: bytes, limit: int) -> None:
        """`sending`, `receiving`: the keys. `limit`: the most bytes that a message to this end may have."""
        self.connection = connection
        self._sending, self._receiving, self._limit = sending, receiving, limit
        self._sent, self._received, self._unread = 0, 0, bytearray()
        self._lock = threading.Lock()
        self._send_error: OSError | None = None

    def send(self, message: bytes) -> None:
        """Send a message. Raises OSError where the connection is gone."""
        with self._lock:
            mac = _mac(self._sending, self._sent, message)
            self._sent += 1
            try:
                self.connection.sendall(b"".join((_LENGTH.pack(len(message)), mac, message)))
            except OSError as error:
                self._send_error = self._send_error or error
                raise

    def recv(self) -> list[bytes]:
        """Wait for one or more messages; none: the other end has closed. Raises OSError, ChannelError."""
        while data := self.connection.recv(_READ_BYTES):
            if found := list(self.feed(data)):
                return found
        with self._lock:  # the kernel tells one thread why a connection has failed, the other sees its end alone
            if self._send_error is not None:
                raise self._send_error
        return []

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are complete with these further bytes. Raises ChannelError behind the last good one."""
        self._unread += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> bytes | None:
        """Raises ChannelError."""
        if len(self._unread) < _HEAD_BYTES:
            return None
        (length,) = _LENGTH.unpack_from(self._unread)
        if length > self._limit:
            raise ChannelError(f"a message of {length} bytes, expected at most {self._limit}")
        end = _HEAD_BYTES + length
        if len(self._unread) < end:
            return None
        message = bytes(self._unread[_HEAD_BYTES:end])
        mac = _mac(self._receiving, self._received, message)
        if not hmac.compare_digest(mac, self._unread[_LENGTH.size : _HEAD_BYTES]):
            raise ChannelError("a message whose HMAC is wrong")
        self._received += 1
        del self._unread[:end]
        return message


def _mac(key: bytes, number: int, message: bytes) -> bytes:
    return hmac.digest(key, _NUMBER.pack(number) + message, "sha256")
