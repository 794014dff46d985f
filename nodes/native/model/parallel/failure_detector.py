"""Rank 0's side of the lifelines: which ranks are connected, which have failed, and why.

Whoever else connects, a port scanner say, takes no rank's place and is no failure: it has a few seconds to prove that
it knows the deployment's key. One thread hears all, so that callers cost no more than a bounded number of sockets.
"""

import hmac
import queue
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from .....core.errors import EngineError
from .failures import Failures
from .lifeline import LENGTH_BYTES
from .messages import MAX_LINE_BYTES, WELCOME, ChildExits, Gone, Hello, Loaded, decode_hello, decode_message, make_proof
from .timeouts import DEFAULT_TIMEOUTS, Timeouts

_MOST_STRANGERS = 64  # who have not yet; then the first of them goes
_SEND_S = 30.0  # for a message to fit into a connection's buffers
_SHORT_TICK_S = 0.05
_READ_BYTES = 1 << 16


@dataclass(eq=False)
class _Connection:
    """A connection, and who speaks on it: nobody until it has said Hello."""

    connection: socket.socket
    patience_s: float
    rank: int | None = None
    host: str = ""
    silent_s: float = 0.0
    unread: bytes = b""


class FailureDetector:
    """Accepts the lifelines of all other ranks, and calls `on_failure` with an EngineError when one is gone."""

    def __init__(
        self,
        address: str,
        others: int,
        key: str,
        child_exits: ChildExits,
        on_failure: Callable[[EngineError], None],
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        """Listen at `address` for so many other ranks; `child_exits` are those of this process's children."""
        self._others, self._key, self._child_exits, self._on_failure = others, key, child_exits, on_failure
        self._timeouts = timeouts
        self._nonce = secrets.token_hex(16)
        self._listener = socket.create_server((address, 0))
        self._listener.setblocking(False)
        self.address_and_nonce = f"{address}:{self._listener.getsockname()[1]} {self._nonce}"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._callers: list[_Connection] = []
        self._ranks: dict[int, socket.socket] = {}
        self._failures = Failures()
        self._lock, self._complete, self._ending = threading.Lock(), threading.Event(), False
        self.failure: EngineError | None = None
        threading.Thread(target=self._run, name="detector", daemon=True).start()

    def close(self) -> None:
        """Tell all ranks to end, without failure."""
        with self._lock:
            self._ending = True
        self.broadcast(b"")
        for connection in self._ranks.values():
            with suppress(OSError):  # it is gone already
                connection.close()

    def broadcast(self, message: bytes) -> None:
        """Send a message to all ranks. Whoever is gone will be noticed elsewhere."""
        framed = len(message).to_bytes(LENGTH_BYTES, "little") + message
        for connection in list(self._ranks.values()):
            with suppress(OSError):
                connection.sendall(framed)

    def wait_for_ranks(self, timeout_s: float) -> None:
        """Wait until all ranks are connected. Raises EngineError where one has failed or is missing by then."""
        if not self._complete.wait(timeout_s):
            missing = ", ".join(str(rank) for rank in range(1, self._others + 1) if rank not in self._ranks)
            raise self.failure or EngineError(f"no lifeline within {timeout_s:.0f} s from rank {missing}")

    def wait_for_failure(self, timeout_s: float) -> EngineError | None:
        """Return the failure of a rank that made a collective fail: noticing it may take a moment longer."""
        deadline = time.monotonic() + timeout_s
        while self.failure is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.failure

    def _run(self) -> None:
        with self._selector:
            while self.failure is None and not self._ending:
                began = time.monotonic()
                for key, _ in self._selector.select(_SHORT_TICK_S if self._failures else self._timeouts.tick_s):
                    if key.data is None:
                        self._accept()
                    elif key.data in self._callers:  # not dropped in this very tick
                        self._read(key.data)
                self._record_child_exits()
                # A process that was stopped for a while, as Slurm suspends jobs, has heard nothing then: no more than
                # one tick counts.
                self._count_silence(min(time.monotonic() - began, self._timeouts.tick_s))
                self._decide()
            self._stop_accepting()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has hung up; or this process has too many open files
            time.sleep(_SHORT_TICK_S)
            return
        connection.setblocking(False)
        caller = _Connection(connection, self._timeouts.hello_s)
        self._selector.register(connection, selectors.EVENT_READ, caller)
        self._callers.append(caller)
        strangers = [caller for caller in self._callers if caller.rank is None]
        if len(strangers) > _MOST_STRANGERS:
            self._drop(strangers[0])

    def _read(self, caller: _Connection) -> None:
        try:
            data = caller.connection.recv(_READ_BYTES)
        except OSError:
            data = b""
        *lines, caller.unread = (caller.unread + data).split(b"\n")
        for said in lines:
            if caller.rank is not None:
                self._handle(caller, caller.rank, said)
            elif not self._handle_hello(caller, said):
                return
        if not data or len(caller.unread) > MAX_LINE_BYTES:
            self._drop(caller)

    def _handle_hello(self, caller: _Connection, said: bytes) -> bool:
        """Admit a rank, or refuse and close the connection; returns whether it is a rank now."""
        hello = decode_hello(said) if len(said) <= MAX_LINE_BYTES else None
        refusal = self._refusal(hello) if hello else ""
        if hello and not refusal:
            self._admit(caller, hello)
            return True
        with suppress(OSError):  # it has hung up
            caller.connection.send(f"{refusal}\n".encode())
        self._drop(caller)
        return False

    def _admit(self, caller: _Connection, hello: Hello) -> None:
        caller.connection.settimeout(_SEND_S)
        with suppress(OSError):  # the next reading will tell
            caller.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            caller.connection.sendall(WELCOME)
        caller.rank, caller.host = hello.rank, hello.host
        caller.patience_s, caller.silent_s = self._timeouts.loading_s, 0.0
        self._ranks[hello.rank] = caller.connection
        if len(self._ranks) == self._others:
            self._stop_accepting()
            self._complete.set()

    def _refusal(self, hello: Hello) -> str:
        """Return why a Hello is refused; empty if it is accepted."""
        if not hmac.compare_digest(hello.proof.encode(), make_proof(self._key, self._nonce, hello.rank).encode()):
            return "its API key is another"
        if not 1 <= hello.rank <= self._others:
            return f"expected rank 1 to {self._others}"
        return f"rank {hello.rank} is there already" if hello.rank in self._ranks else ""

    def _stop_accepting(self) -> None:
        """Stop accepting, and close connections that have not said Hello."""
        self._unregister(self._listener)
        for caller in [caller for caller in self._callers if caller.rank is None]:
            self._drop(caller)

    def _handle(self, caller: _Connection, rank: int, said: bytes) -> None:
        caller.silent_s = 0.0
        if not said:
            return
        message = decode_message(said) or Gone(rank, caller.host, f"it says what nobody understands: {said!r}")
        if isinstance(message, Loaded):
            caller.patience_s = self._timeouts.loaded_s
        else:
            self._record(message, is_own=message.rank == rank)

    def _record_child_exits(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._record(self._child_exits.get_nowait())

    def _count_silence(self, elapsed_s: float) -> None:
        for caller in list(self._callers):
            caller.silent_s += elapsed_s
            if caller.silent_s < caller.patience_s:
                continue
            if caller.rank is not None:
                self._record(Gone(caller.rank, caller.host, f"it has been silent for {caller.patience_s:.0f} s"))
            self._drop(caller)

    def _drop(self, caller: _Connection) -> None:
        """Close a connection; if it was a rank's, the rank has failed."""
        self._callers.remove(caller)
        self._unregister(caller.connection)
        if caller.rank is not None:
            self._record(Gone(caller.rank, caller.host, ""))

    def _unregister(self, connection: socket.socket) -> None:
        with suppress(OSError, KeyError, ValueError):  # `close` has been quicker
            self._selector.unregister(connection)
        connection.close()

    def _record(self, gone: Gone, is_own: bool = False) -> None:
        self._failures.record(gone, time.monotonic(), is_own)

    def _decide(self) -> None:
        gone = self._failures.first(time.monotonic())
        if gone is None:
            return
        with self._lock:
            if self._ending:
                return
            self.failure = EngineError(str(gone))
        self._on_failure(self.failure)
