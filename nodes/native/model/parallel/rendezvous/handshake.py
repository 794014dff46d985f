"""How rank 0 and another rank prove to each other that they know the worker's secret, before anything else is said.

    rank -> rank 0    a preamble, the rank's number and a nonce
    rank 0 -> rank    a nonce
    rank -> rank 0    the rank's proof: an HMAC by the secret over all of this
    rank 0 -> rank    rank 0's proof

Whoever connects without the secret learns one nonce. Proofs hold for one connection and one direction.
"""

import hmac
import secrets
import socket
import struct

from .channel import Channel
from .messages import MAX_BYTES_TO_RANK, MAX_BYTES_TO_RANK_0

_PREAMBLE = b"slurminfer rank\0"
_NONCE_BYTES, _PROOF_BYTES = 32, 32
_HELLO = struct.Struct(f"!{len(_PREAMBLE)}sI{_NONCE_BYTES}s")


class HandshakeError(Exception):
    """The other end does not know the secret, or is no rank at all."""


class HungUpError(HandshakeError):
    """The other end has closed the connection; `challenged`: after it had asked for a proof."""

    def __init__(self, challenged: bool) -> None:
        self.challenged = challenged
        super().__init__("it has hung up")


class Admission:
    """Rank 0's side of a connection until the other rank has proven itself. Never waits."""

    def __init__(self, connection: socket.socket, secret: str) -> None:
        """`connection` does not block."""
        self._connection, self._secret = connection, secret
        self._unread = b""
        self._keys: _Keys | None = None
        self.rank = 0

    def feed(self, data: bytes) -> Channel | None:
        """Take further bytes; the channel once the other end has proven that it is `rank`.

        Raises HandshakeError, OSError.
        """
        self._unread += data
        expected = _HELLO.size if self._keys is None else _PROOF_BYTES
        if len(self._unread) < expected:
            return None
        said, too_early, self._unread = self._unread[:expected], self._unread[expected:], b""
        if too_early:
            raise HandshakeError("it has sent more than was asked for")
        if self._keys is None:
            self._challenge(said)
            return None
        if not hmac.compare_digest(said, self._keys.proof_of_rank):
            raise HandshakeError("its proof is wrong")
        self._connection.sendall(self._keys.proof_of_rank_0)
        return Channel(self._connection, self._keys.to_rank, self._keys.to_rank_0, MAX_BYTES_TO_RANK_0)

    def _challenge(self, hello: bytes) -> None:
        preamble, self.rank, _ = _HELLO.unpack(hello)
        if preamble != _PREAMBLE:
            raise HandshakeError("it is no rank")
        nonce = secrets.token_bytes(_NONCE_BYTES)
        self._keys = _Keys(self._secret, hello + nonce)
        self._connection.sendall(nonce)


def prove(connection: socket.socket, rank: int, secret: str) -> Channel:
    """Prove over a new connection to rank 0 that this is `rank`, and demand the same of the other end.

    Raises HandshakeError, OSError.
    """
    hello = _HELLO.pack(_PREAMBLE, rank, secrets.token_bytes(_NONCE_BYTES))
    connection.sendall(hello)
    keys = _Keys(secret, hello + _recv(connection, _NONCE_BYTES, challenged=False))
    connection.sendall(keys.proof_of_rank)
    if not hmac.compare_digest(_recv(connection, _PROOF_BYTES, challenged=True), keys.proof_of_rank_0):
        raise HandshakeError("it does not know the secret of this worker")
    return Channel(connection, keys.to_rank_0, keys.to_rank, MAX_BYTES_TO_RANK)


class _Keys:
    """Proofs and keys of one connection, by the secret and what both ends have said."""

    def __init__(self, secret: str, said: bytes) -> None:
        names = (b"rank", b"rank 0", b"to rank 0", b"to rank")
        derived = (hmac.digest(secret.encode(), name + b"\0" + said, "sha256") for name in names)
        self.proof_of_rank, self.proof_of_rank_0, self.to_rank_0, self.to_rank = derived


def _recv(connection: socket.socket, count: int, challenged: bool) -> bytes:
    found = b""
    while len(found) < count:
        try:
            data = connection.recv(count - len(found))
        except ConnectionError:
            data = b""
        if not data:
            raise HungUpError(challenged)
        found += data
    return found
