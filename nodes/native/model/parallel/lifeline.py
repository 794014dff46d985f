"""A rank's connection to rank 0, which tells at once when the rank is gone, and why.

Each rank but 0 keeps one and sends a heartbeat every second, and its reason if it fails. A process that dies closes
its connection; one that is stopped, or whose node is gone, falls silent. Collectives alone would tell of it only in the
next step, and never which rank it was. Rank 0's side is failure_detector.py.

The other way goes what rank 0 wants computed. A collective would have all ranks meet for it, and so wait for the one
that is still busy with the step before; here it lies ready for whoever has time.
"""

import os
import queue
import socket
import sys
import threading
from contextlib import suppress

from .....core.errors import EngineError
from .messages import MAX_LINE_BYTES, WELCOME, ChildExits, Gone, Hello, Loaded, encode_line, make_proof
from .timeouts import DEFAULT_TIMEOUTS, Timeouts

_CONNECT_S = 60.0
LENGTH_BYTES = 8  # of a message to the ranks, before it; one of no bytes is a goodbye
_MAX_REASON = 2000  # characters


class Lifeline:
    """Connection of a rank to rank 0: sends heartbeats, receives steps, and ends the process when rank 0 is gone."""

    def __init__(
        self,
        address_and_nonce: str,
        rank: int,
        key: str,
        child_exits: ChildExits,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        """Connect to rank 0 by its `FailureDetector.address_and_nonce`, and report to it the `child_exits`.

        Raises EngineError where rank 0 cannot be reached or refuses this rank.
        """
        address, _, nonce = address_and_nonce.partition(" ")
        self._timeouts = timeouts
        host, _, port = address.rpartition(":")
        self._rank, self._host, self._child_exits = rank, socket.gethostname(), child_exits
        try:
            self._connection = socket.create_connection((host, int(port)), timeout=_CONNECT_S)
            self._connection.sendall(encode_line(Hello(rank, self._host, make_proof(key, nonce, rank))))
            self._stream = self._connection.makefile("rb")
            answer = self._stream.readline(MAX_LINE_BYTES)
        except OSError as error:
            raise EngineError(f"rank {rank}: no lifeline to rank 0 at {address}: {error}") from error
        if answer != WELCOME:
            why = answer.decode(errors="replace").strip() or "it has hung up"
            raise EngineError(f"rank {rank}: rank 0 at {address} does not take it: {why}")
        self._connection.settimeout(None)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * timeouts.unacknowledged_s)
        )
        self._sending = threading.Lock()
        self._messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        for work in (self._send_heartbeats, self._receive):
            threading.Thread(target=work, name="lifeline", daemon=True).start()

    def recv(self) -> bytes:
        """Wait for the next message that rank 0 has broadcast."""
        return self._messages.get()

    def report_loaded(self) -> None:
        """Tell rank 0 that weights are loaded: from now on a few seconds of silence are a failure."""
        self._send(encode_line(Loaded()))

    def report_failure(self, reason: str) -> None:
        """Tell rank 0 why this rank fails; at most 2,000 characters are sent."""
        self._send(encode_line(Gone(self._rank, self._host, " ".join(reason.split())[:_MAX_REASON])))

    def _send(self, said: bytes) -> None:
        with self._sending, suppress(OSError):  # nobody hears it: standard error has it
            self._connection.sendall(said)

    def _send_heartbeats(self) -> None:
        while True:
            try:
                said = encode_line(self._child_exits.get(timeout=self._timeouts.heartbeat_s))
            except queue.Empty:
                said = b"\n"
            self._send(said)

    def _receive(self) -> None:
        why = "rank 0 has ended"
        try:
            while head := self._stream.read(LENGTH_BYTES):
                length = int.from_bytes(head, "little")
                if length == 0:
                    os._exit(0)  # the main thread is somewhere in a collective
                message = self._stream.read(length)
                if len(message) == length:
                    self._messages.put(message)
        except ConnectionError:  # reset
            pass
        except OSError as error:
            why = f"rank 0's node has not answered for {self._timeouts.unacknowledged_s:.0f} s: {error.strerror}"
        print(f"error: {why}", file=sys.stderr, flush=True)
        os._exit(1)
