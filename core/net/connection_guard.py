"""Which connections a server keeps, so that peers without a key cannot use up its descriptors.

A connection is a *stranger* until one of its requests has shown the right key. A stranger has 10 s. When connections
are too many, the oldest stranger is closed, then the trusted connection that has been idle for longest. While all have
requests in flight, new ones are closed. When strangers have sent too much together, the oldest of them are closed.

The books are kept here, for any server; core/net/http_limits.py is the one of aiohttp.
"""

import logging
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_log = logging.getLogger(__name__)
_MOST_CONNECTIONS = 2**16
_REPORT_TICKS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How many connections, for how long. Times are in seconds in which the event loop runs: a stall does not count."""

    connections: int  # open at once
    strangers_per_source: int  # of one address; connections of Unix sockets have none
    stranger_s: int = 10  # until the application must have trusted a request, its head has to come within this time
    idle_s: float = 75.0  # of a trusted connection between two requests; proxies reuse connections for up to 60 s
    discarded_bytes: int = 8 * 2**20  # read from a connection while no trusted request is being answered
    strange_bytes: int = 64 * 2**20  # read from all strangers that there are; then the oldest one is closed
    line_bytes: int = 8190  # of the request line, and of one header
    headers: int = 100
    head_bytes: int = 64 * 2**10  # of a request's head; aiohttp itself bounds each line only


def limits_of_process(*, spare: int = 64, descriptors_each: int = 1) -> ConnectionLimits:
    """Limits within the descriptors that this process may have open (RLIMIT_NOFILE's soft limit).

    Args:
        spare: descriptors kept free for files and for connections that the process makes itself.
        descriptors_each: what one connection needs in all; 2 where a connection to another server goes with it.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = soft - len(list(Path("/proc/self/fd").iterdir())) - spare
    connections = _MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(free // descriptors_each, 8)
    connections = min(connections, _MOST_CONNECTIONS)
    return ConnectionLimits(connections=connections, strangers_per_source=max(connections // 2, 4))


class Guarded(Protocol):
    """What the guard knows of a connection. Only the guard writes `since`, `discarded`, `trusted` and `busy`."""

    source: str  # the peer's address; "" for a Unix socket
    since: int  # the guard's tick at which it was opened
    discarded: int  # bytes read while it was not busy
    trusted: bool
    busy: bool

    def cut(self) -> None:
        """Close the connection at once."""

    def __hash__(self) -> int: ...


class Guard:
    """The connections of one server, in the order in which they may be closed."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._strangers: dict[Guarded, None] = {}  # dicts as ordered sets: oldest first
        self._by_source: dict[str, dict[Guarded, None]] = {}
        self._idle: dict[Guarded, None] = {}  # trusted, without a request
        self._busy = 0  # how many are trusted, with a request
        self._strange_bytes = 0  # that were read from strangers: heads that have not ended take as much memory
        self._ticks = 0  # seconds, without those in which the event loop stood still
        self._malformed = 0  # requests since the last line of log about them

    @property
    def counts(self) -> dict[str, int]:
        """Open connections by state: stranger, idle, busy."""
        return {"stranger": len(self._strangers), "idle": len(self._idle), "busy": self._busy}

    def tick(self) -> None:
        """Close strangers whose time is over. Called once a second."""
        self._ticks += 1
        expired = []
        for connection in self._strangers:
            if self._ticks - connection.since < self.limits.stranger_s:
                break
            expired.append(connection)
        for connection in expired:
            self._cut(connection)
        if self._ticks % _REPORT_TICKS == 0:
            if self._malformed > 1:
                _log.warning("%d more malformed HTTP requests in the last minute", self._malformed - 1)
            self._malformed = 0

    def opened(self, connection: Guarded) -> None:
        """Take a new connection in, at the cost of another if there are too many."""
        connection.since = self._ticks
        self._strangers[connection] = None
        if connection.source:
            same = self._by_source.setdefault(connection.source, {})
            same[connection] = None
            if len(same) > self.limits.strangers_per_source:
                self._cut(next(iter(same)))
        if len(self._strangers) + len(self._idle) + self._busy > self.limits.connections:
            self._cut(self._least_worth(connection))

    def read(self, connection: Guarded, size: int) -> bool:
        """Note that so many bytes were read from a connection that is not busy. False: that was too much of it."""
        connection.discarded += size
        if connection in self._strangers:
            self._strange_bytes += size
            while self._strange_bytes > self.limits.strange_bytes and len(self._strangers) > 1:
                oldest = next(iter(self._strangers))
                if oldest is connection:
                    return False
                self._cut(oldest)
        return connection.discarded <= self.limits.discarded_bytes

    def began(self, connection: Guarded) -> None:
        """Note that a request of `connection` has shown the right key, and is being answered."""
        if connection.busy:
            return
        if connection.trusted:
            self._idle.pop(connection, None)
        else:
            self._forget(connection)
        connection.discarded = 0
        connection.trusted = connection.busy = True
        self._busy += 1

    def finished(self, connection: Guarded) -> None:
        """Note that a response has been sent."""
        if connection.busy:
            self._busy -= 1
            self._idle[connection] = None
            connection.busy = False

    def lost(self, connection: Guarded) -> None:
        """Note that a connection is closed."""
        self._forget(connection)

    def malformed(self, source: str, message: str) -> None:
        """Log the first bad request of a minute, and count the others."""
        if not self._malformed:
            _log.warning("malformed HTTP request from %s: %.200r", source or "the Unix socket", message)
        self._malformed += 1

    def _least_worth(self, newest: Guarded) -> Guarded:
        """The oldest stranger; if there is none but `newest`, the connection that has been idle for longest."""
        oldest = next(iter(self._strangers))
        return oldest if oldest is not newest else next(iter(self._idle), newest)

    def _cut(self, connection: Guarded) -> None:
        self._forget(connection)
        connection.cut()

    def _forget(self, connection: Guarded) -> None:
        if connection in self._strangers:
            del self._strangers[connection]
            self._strange_bytes -= connection.discarded
        self._idle.pop(connection, None)
        if connection.busy:
            self._busy -= 1
            connection.busy = False
        same = self._by_source.get(connection.source, {})
        same.pop(connection, None)
        if not same:
            self._by_source.pop(connection.source, None)
