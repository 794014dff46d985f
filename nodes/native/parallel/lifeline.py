"""Connections that tell at once when a rank is gone, which, and why.

Each rank but 0 keeps one to rank 0 and says every second that it lives; a last word says why it ends. A process that
dies closes its connection; one that is stopped, or whose node is gone, falls silent. Collectives alone would tell of it
only in the next step, and never which rank it was.

The other way goes what rank 0 wants computed. A collective would have all ranks meet for it, and so wait for the one
that is still busy with the step before; here it lies ready for whoever has time.
"""

import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from ....core.errors import EngineError

_BEAT_S = 1.0
_SILENCE_S = 30.0  # of a rank that is not dead yet: PyTorch may hold Python's lock for seconds while it loads
_CONNECT_S = 60.0
_LENGTH_BYTES = 8  # of a message to the ranks, before it; one of no bytes is a goodbye
_LAST_WORDS = 2000  # characters


class Hello(msgspec.Struct, frozen=True):
    """Who it is that lives."""

    rank: int
    host: str


class Warden:
    """Rank 0's side: hears all the others, and calls `on_loss` with an EngineError when one is gone."""

    def __init__(self, address: str, others: int, on_loss: Callable[[EngineError], None]) -> None:
        self._others, self._on_loss = others, on_loss
        self._listener = socket.create_server((address, 0))
        self.address = f"{address}:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        self._lock, self._complete = threading.Lock(), threading.Event()
        self._ending = False
        self.loss: EngineError | None = None
        threading.Thread(target=self._accept, name="warden", daemon=True).start()

    def close(self) -> None:
        """Tell all ranks that this is the end, which is no failure."""
        with self._lock:
            self._ending = True
            for connection in self._connections:
                with suppress(OSError):  # it is gone already
                    connection.sendall(_framed(b""))
                    connection.close()
            self._listener.close()

    def tell(self, message: bytes) -> None:
        """Send a message of one byte or more to all ranks. Whoever is gone will be noticed elsewhere."""
        framed = _framed(message)
        for connection in self._connections:
            with suppress(OSError):
                connection.sendall(framed)

    def wait(self, timeout_s: float) -> None:
        """Until all ranks are connected. Raises EngineError."""
        if not self._complete.wait(timeout_s):
            raise self.loss or EngineError(f"{self._others - len(self._connections)} ranks have not come")

    def why(self, timeout_s: float) -> EngineError | None:
        """The loss of a rank, for whom a collective has failed: the news may take a moment longer."""
        deadline = time.monotonic() + timeout_s
        while self.loss is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.loss

    def _accept(self) -> None:
        for _ in range(self._others):
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            connection.settimeout(_SILENCE_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections.append(connection)
            threading.Thread(target=self._hear, args=(connection,), name="lifeline", daemon=True).start()
        self._complete.set()

    def _hear(self, connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        who, reason = "a rank", "it has ended without a word"
        try:
            hello = msgspec.json.decode(lines.readline(), type=Hello)
            who = f"rank {hello.rank} on {hello.host}"
            for line in lines:
                word = line.decode(errors="replace").strip()
                reason = word or reason
        except TimeoutError:
            reason = f"it has been silent for {_SILENCE_S:.0f} s"
        except (OSError, msgspec.DecodeError) as error:
            reason = f"{error}"
        with self._lock:
            if self._ending or self.loss is not None:
                return
            self.loss = EngineError(f"{who} is gone: {reason}")
        self._on_loss(self.loss)


class Lifeline:
    """The other ranks' side. When rank 0 has ended, so does this process."""

    def __init__(self, address: str, rank: int) -> None:
        """Raises EngineError."""
        host, _, port = address.rpartition(":")
        try:
            self._connection = socket.create_connection((host, int(port)), timeout=_CONNECT_S)
        except OSError as error:
            raise EngineError(f"rank {rank}: no lifeline to rank 0 at {address}: {error}") from error
        self._connection.settimeout(None)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._connection.sendall(msgspec.json.encode(Hello(rank, socket.gethostname())) + b"\n")
        for work in (self._beat, self._listen):
            threading.Thread(target=work, name="lifeline", daemon=True).start()

    def hear(self) -> bytes:
        """The next message of rank 0."""
        return self._messages.get()

    def last_words(self, reason: str) -> None:
        """Say why this rank ends."""
        with suppress(OSError):  # nobody hears it: standard error has it
            self._connection.sendall(" ".join(reason.split())[:_LAST_WORDS].encode() + b"\n")

    def _beat(self) -> None:
        with suppress(OSError):
            while True:
                time.sleep(_BEAT_S)
                self._connection.sendall(b"\n")

    def _listen(self) -> None:
        stream = self._connection.makefile("rb")
        with suppress(OSError):
            while head := stream.read(_LENGTH_BYTES):
                length = int.from_bytes(head, "little")
                if length == 0:
                    os._exit(0)  # the main thread is somewhere in a collective
                message = stream.read(length)
                if len(message) == length:
                    self._messages.put(message)
        print("error: rank 0 has ended", file=sys.stderr, flush=True)
        os._exit(1)


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(_LENGTH_BYTES, "little") + message
