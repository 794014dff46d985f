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
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from ......core.errors import EngineError
from .channel import Channel, ChannelError
from .handshake import HandshakeError, HungUpError, prove
from .key_table import Reply
from .messages import (
    MAX_REASON,
    Alive,
    Answer,
    ChildExits,
    Gone,
    Goodbye,
    Hello,
    Loaded,
    Refused,
    Request,
    Step,
    ToRank,
    ToRank0,
    Welcome,
    decode_to_rank,
    encode,
)  # fmt: skip
from .timeouts import DEFAULT_TIMEOUTS, Timeouts

_RETRY_S = 0.1
_MOST_REFUSALS = 3  # of a proof: rank 0 may have hung up for another reason

OnEnd = Callable[[str | None], None]  # with what has become of rank 0; None: it has said goodbye


def end_process(why: str | None) -> None:
    """End this process, whose main thread is somewhere in a collective."""
    if why is not None:
        print(f"error: {why}", file=sys.stderr, flush=True)
    os._exit(0 if why is None else 1)


class Lifeline:
    """Connection of a rank to rank 0: sends heartbeats, receives steps, and ends the process when rank 0 is gone."""

    def __init__(
        self,
        address: str,
        rank: int,
        secret: str,
        child_exits: ChildExits,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        on_end: OnEnd = end_process,
    ) -> None:
        """Connect to rank 0 at `address`, HOST:PORT, and report to it the `child_exits`.

        `on_end` is called in another thread when rank 0 is gone. Raises EngineError where rank 0 cannot be reached or
        refuses this rank, or where whoever listens there does not know the secret.
        """
        self._rank, self._host, self._child_exits, self._on_end = rank, socket.gethostname(), child_exits, on_end
        self._timeouts = timeouts
        self._channel = _connect(address, rank, secret, timeouts)
        self._messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._replies: dict[int, Reply] = {}
        self._lock, self._gone = threading.Lock(), ""
        connection = self._channel.connection
        try:
            early = self._be_welcomed(address)
        except EngineError:
            connection.close()
            raise
        self._send(Hello(self._host))
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * timeouts.unacknowledged_s))
        threading.Thread(target=self._send_heartbeats, name="lifeline", daemon=True).start()
        threading.Thread(target=self._receive, args=(early,), name="lifeline", daemon=True).start()

    def recv(self) -> bytes:
        """Wait for the next step that rank 0 has broadcast."""
        return self._messages.get()

    def report_loaded(self) -> None:
        """Tell rank 0 that weights are loaded: from now on a few seconds of silence are a failure."""
        self._send(Loaded())

    def report_failure(self, reason: str) -> None:
        """Tell rank 0 why this rank fails; at most 2,000 characters are sent."""
        self._send(Gone(self._rank, self._host, " ".join(reason.split())[:MAX_REASON]))

    def close(self) -> None:
        """Close the connection, once rank 0 has ended."""
        self._channel.connection.close()

    def ask(self, request: Request, reply: Reply) -> None:
        """Send a request to rank 0's store; `reply` is called with the answer, in another thread or at once."""
        with self._lock:
            if not self._gone:
                self._replies[request.id] = reply
        if self._gone:
            reply(Answer(request.id, error=self._gone))
        else:
            self._send(request)

    def _be_welcomed(self, address: str) -> list[bytes]:
        """Messages that have come behind the welcome. Raises EngineError where there is none."""
        try:
            first, *others = self._channel.recv() or [b""]
            said = decode_to_rank(first)
        except (OSError, ChannelError, msgspec.DecodeError) as error:
            raise _refusal(self._rank, address, str(error)) from error
        if isinstance(said, Refused):
            raise _refusal(self._rank, address, said.reason)
        if not isinstance(said, Welcome):
            raise _refusal(self._rank, address, f"it says {type(said).__name__}")
        return others

    def _send(self, message: ToRank0) -> None:
        with suppress(OSError):  # rank 0 is gone; the reason is on standard error too
            self._channel.send(encode(message))

    def _send_heartbeats(self) -> None:
        while True:
            try:
                self._send(self._child_exits.get(timeout=self._timeouts.heartbeat_s))
            except queue.Empty:
                self._send(Alive())

    def _receive(self, messages: list[bytes]) -> None:
        why: str | None = "rank 0 has ended"
        try:
            while True:
                for message in messages:
                    if not self._handle(decode_to_rank(message)):
                        why = None
                        return
                if not (messages := self._channel.recv()):
                    return
        except ConnectionError:  # reset
            pass
        except OSError as error:
            why = f"rank 0's node has not answered for {self._timeouts.unacknowledged_s:.0f} s: {error.strerror}"
        except (ChannelError, msgspec.DecodeError) as error:
            why = f"rank 0 has sent an invalid message: {error}"
        finally:
            self._end(why)

    def _handle(self, message: ToRank) -> bool:
        """Whether there is more to come."""
        if isinstance(message, Step):
            self._messages.put(message.content)
        elif isinstance(message, Answer) and (reply := self._replies.pop(message.id, None)):
            reply(message)
        return not isinstance(message, Goodbye)

    def _end(self, why: str | None) -> None:
        with self._lock:
            self._gone, waiting = why or "rank 0 has ended", dict(self._replies)
        self._on_end(why)
        for id, reply in waiting.items():
            reply(Answer(id, error=self._gone))


def _connect(address: str, rank: int, secret: str, timeouts: Timeouts) -> Channel:
    """Until `meeting_s` is over: nodes of a job may start one after the other. Raises EngineError."""
    host, _, port = address.rpartition(":")
    deadline, refusals = time.monotonic() + timeouts.meeting_s, 0
    while True:
        try:
            connection = socket.create_connection((host, int(port)), timeout=timeouts.hello_s)
        except OSError as error:
            if time.monotonic() > deadline:
                raise EngineError(f"rank {rank}: no lifeline to rank 0 at {address}: {error}") from error
            time.sleep(_RETRY_S)
            continue
        try:
            return prove(connection, rank, secret)
        except (HandshakeError, OSError) as error:
            connection.close()
            if not isinstance(error, HungUpError | OSError):
                raise _refusal(rank, address, str(error)) from error
            refusals += isinstance(error, HungUpError) and error.challenged
            if refusals >= _MOST_REFUSALS:
                raise _refusal(rank, address, "it has hung up; its secret may be another") from error
            if time.monotonic() > deadline:
                raise _refusal(rank, address, str(error)) from error
            time.sleep(_RETRY_S)


def _refusal(rank: int, address: str, why: str) -> EngineError:
    return EngineError(f"rank {rank}: whoever listens at {address} does not take it: {why}")
