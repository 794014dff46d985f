"""Sessions on a router's socket, many at once, and what is wrong about what comes back."""

import asyncio
import re
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from slurminfer.core.net.connection_guard import limits_of_process

from .sessions import Going, Session

AT_ONCE = 64
_STRANGER_S = limits_of_process().stranger_s - 1
_END_S = 60.0  # within which a connection has to end that the server is to close
_QUIET_S = 0.02  # for which a client that just goes listens before
_PIECE = 1 << 16
_MOST_WRONG = 10
_RESETS = struct.pack("ii", 1, 0)
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n(?:Date|Content-Type|content-type|[A-Za-z-]+):")
_SECRET = b"canary"  # in the names of model and workers


@dataclass(slots=True)
class Outcome:
    """What came of a storm."""

    statuses: Counter[int] = field(default_factory=Counter)
    sessions: int = 0
    slow: int = 0  # sessions that took as long as the server gives to one without a key, and got nothing
    requests: int = 0  # heads that were sent, good and bad
    wrong: list[str] = field(default_factory=list)
    keyed: set[str] = field(default_factory=set)  # ids of the requests that were sent with the key


async def storm(
    port: int, sessions: Iterator[Session], requests: int, context: ssl.SSLContext | None = None
) -> Outcome:
    """Open connections until so many requests were sent."""
    outcome = Outcome()

    async def work() -> None:
        while outcome.requests < requests and len(outcome.wrong) < _MOST_WRONG:
            session = next(sessions)
            outcome.sessions += 1
            outcome.requests += max(1, b"".join(session.pieces).count(b"X-Request-Id: "))
            await _run(port, session, outcome, context)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return outcome


async def _run(port: int, session: Session, outcome: Outcome, context: ssl.SSLContext | None) -> None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except OSError as error:  # the guard closes connections when there are too many
        outcome.wrong.append(f"no connection: {error!r}")
        return
    began = time.monotonic()
    got, sock = bytearray(), writer.get_extra_info("socket")
    try:
        async with asyncio.timeout(_END_S):
            await _talk(reader, writer, session, got)
    except TimeoutError:
        outcome.wrong.append(f"hangs: {session}; got {bytes(got)!r}"[:2500])
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        if session.going is Going.RESET:
            with suppress(OSError):  # the server was faster
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS)
        writer.transport.abort()
    if got or time.monotonic() - began < _STRANGER_S:  # a busy machine may make us slower than a client may be
        _judge(session, bytes(got), outcome)
    else:
        outcome.slow += 1


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: Session, got: bytearray) -> None:
    """Send the pieces, and read meanwhile: what has come before a reset counts."""
    reading = asyncio.create_task(_read(reader, got))
    try:
        for piece in session.pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        if session.going is Going.HALF_CLOSED and writer.can_write_eof():
            writer.write_eof()
        elif session.going is Going.CLOSED:
            await asyncio.wait([reading], timeout=_QUIET_S)
        if session.must_end and (writer.can_write_eof() or session.going is Going.ANSWERED):
            await reading
    finally:
        reading.cancel()
        await asyncio.wait([reading])


async def _read(reader: asyncio.StreamReader, got: bytearray) -> None:
    with suppress(ConnectionError, ssl.SSLError):
        while piece := await reader.read(_PIECE):
            got += piece


def _judge(session: Session, got: bytes, outcome: Outcome) -> None:
    statuses = [int(status) for status in _STATUS.findall(got)]
    outcome.statuses.update(statuses or [0])
    if any(status >= 500 for status in statuses):
        outcome.wrong.append(f"{statuses}: {session}"[:2500])
    if got and not got.startswith(b"HTTP/1.1 "):
        outcome.wrong.append(f"{got[:200]!r}: {session}"[:2500])
    if _SECRET in got and not session.has_key:
        outcome.wrong.append(f"told without a key: {got!r}: {session}"[:2500])
    if session.going is Going.ANSWERED and not statuses:
        outcome.wrong.append(f"no answer: {session}"[:2500])
