"""Rank 0's side of the lifelines: which ranks are connected, which have failed, and why; and the store they meet at.

Other connections, such as a port scanner's, are no failure: each has a few seconds to prove that it knows the worker's
secret. One thread serves all connections, and the number of those that have proven nothing is bounded.
"""

import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from ......core.errors import EngineError
from .channel import Channel, ChannelError
from .failures import Failures
from .handshake import Admission, HandshakeError
from .key_table import Ask, KeyTable
from .messages import (
    Alive,
    Answer,
    ChildExits,
    Gone,
    Goodbye,
    Hello,
    Loaded,
    Refused,
    Step,
    ToRank0,
    Welcome,
    decode_to_rank_0,
    encode,
)  # fmt: skip
from .timeouts import DEFAULT_TIMEOUTS, Timeouts

_MOST_STRANGERS = 64  # connections that have proven nothing yet; with more, the oldest is closed
_SEND_S = 30.0  # for a message to fit into a connection's buffers
_SHORT_TICK_S = 0.05
_READ_BYTES = 1 << 16


@dataclass(eq=False)
class _Caller:
    """A connection, and who speaks on it: nobody until `channel` is there."""

    connection: socket.socket
    admission: Admission
    patience_s: float
    channel: Channel | None = None
    rank: int | None = None
    host: str = ""
    silent_s: float = 0.0


class FailureDetector:
    """Accepts the lifelines of all other ranks, and calls `on_failure` with an EngineError when one is gone."""

    def __init__(
        self,
        address: str,
        others: int,
        secret: str,
        child_exits: ChildExits,
        on_failure: Callable[[EngineError], None],
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        """Listen at `address`, HOST:PORT, for so many other ranks; `child_exits` are those of this process's children.

        Raises EngineError where somebody else listens there.
        """
        self._others, self._secret, self._child_exits, self._on_failure = others, secret, child_exits, on_failure
        self._timeouts, self._table = timeouts, KeyTable()
        self.ask: Ask = self._table.ask
        self._listener = _listen(address)
        self._listener.setblocking(False)
        self.address = "{}:{}".format(*self._listener.getsockname()[:2])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._callers: list[_Caller] = []
        self._ranks: dict[int, Channel] = {}
        self._failures = Failures()
        self._lock, self._complete, self._ending = threading.Lock(), threading.Event(), False
        self.failure: EngineError | None = None
        threading.Thread(target=self._run, name="detector", daemon=True).start()

    def close(self) -> None:
        """Tell all ranks to end, without failure."""
        with self._lock:
            self._ending = True
        self._send_to_all(Goodbye())
        for channel in list(self._ranks.values()):
            with suppress(OSError):  # it is gone already
                channel.connection.close()

    def broadcast(self, message: bytes) -> None:
        """Send a step to all ranks. Whoever is gone will be noticed elsewhere."""
        self._send_to_all(Step(message))

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

    def _send_to_all(self, message: Step | Goodbye) -> None:
        encoded = encode(message)
        for channel in list(self._ranks.values()):
            with suppress(OSError):
                channel.send(encoded)

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
            connection, (host, *_) = self._listener.accept()
        except OSError:  # it has hung up; or this process has too many open files
            time.sleep(_SHORT_TICK_S)
            return
        connection.setblocking(False)
        caller = _Caller(connection, Admission(connection, self._secret), self._timeouts.hello_s, host=host)
        self._selector.register(connection, selectors.EVENT_READ, caller)
        self._callers.append(caller)
        strangers = [caller for caller in self._callers if caller.rank is None]
        if len(strangers) > _MOST_STRANGERS:
            self._drop(strangers[0])

    def _read(self, caller: _Caller) -> None:
        try:
            data = caller.connection.recv(_READ_BYTES)
        except OSError:
            data = b""
        try:
            if caller.channel is None:
                self._admit(caller, data)
            elif caller.rank is not None:
                for message in caller.channel.feed(data):
                    self._handle(caller, caller.channel, caller.rank, decode_to_rank_0(message))
        except (HandshakeError, OSError):
            data = b""
        except (ChannelError, msgspec.DecodeError) as error:
            self._record(Gone(caller.rank or 0, caller.host, f"it has sent an invalid message: {error}"))
            data = b""
        if not data:
            self._drop(caller)

    def _admit(self, caller: _Caller, data: bytes) -> None:
        """Raises HandshakeError for whoever is refused, OSError."""
        channel = caller.admission.feed(data)
        if channel is None:
            return
        rank = caller.admission.rank
        caller.connection.settimeout(_SEND_S)
        caller.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if refusal := self._refusal(rank):
            channel.send(encode(Refused(refusal)))
            raise HandshakeError(refusal)
        channel.send(encode(Welcome()))
        caller.rank, caller.channel = rank, channel
        caller.patience_s, caller.silent_s = self._timeouts.loading_s, 0.0
        self._ranks[rank] = channel
        if len(self._ranks) == self._others:
            self._stop_accepting()
            self._complete.set()

    def _refusal(self, rank: int) -> str:
        """Return why a rank that has proven itself is refused; empty if it is accepted."""
        if not 1 <= rank <= self._others:
            return f"expected rank 1 to {self._others}"
        return f"rank {rank} is there already" if rank in self._ranks else ""

    def _stop_accepting(self) -> None:
        """Stop accepting, and close connections that have not proven to be a rank's."""
        self._unregister(self._listener)
        for caller in [caller for caller in self._callers if caller.rank is None]:
            self._drop(caller)

    def _handle(self, caller: _Caller, channel: Channel, rank: int, message: ToRank0) -> None:
        caller.silent_s = 0.0
        match message:
            case Hello(host):
                caller.host = host
            case Alive():
                pass
            case Loaded():
                caller.patience_s = self._timeouts.loaded_s
            case Gone():
                self._record(message, is_own=message.rank == rank)
            case _:
                self._table.ask(message, lambda answer: _reply(channel, answer))

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

    def _drop(self, caller: _Caller) -> None:
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


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server((host, int(port)))
    except (OSError, OverflowError) as error:
        raise EngineError(f"rank 0 cannot listen on {address}: {error}") from error


def _reply(channel: Channel, answer: Answer) -> None:
    with suppress(OSError):  # it is gone, which is noticed elsewhere
        channel.send(encode(answer))
