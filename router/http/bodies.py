"""Bodies of requests in memory: each up to a bound, and all of them together."""

from dataclasses import dataclass
from typing import Any

from ...core.net.compression import BodyError

# One tenant's bodies may take up to so many times the room that is left: alone it has four fifths, the next one four
# fifths of the rest. So there is always room for another one. (Choudhury and Hahne, dynamic queue length thresholds.)
_TIMES_THE_REST = 4
# Pieces of a body up to this size are collected: each of its own would take many times its size.
_SMALL = 4096
_MOST_EMPTY = 64  # of the tenants that hold nothing, so many are kept: making a share anew takes longer than counting


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """How much of requests' bodies may be held."""

    each: int = 64 * 2**20  # bytes of one, as sent and decompressed
    together: int = 2**30  # bytes of all that are not answered yet


class Bodies:
    """Knows how much is held of the bodies of all requests until they are answered."""

    __slots__ = ("_by_tenant", "_crowded", "held", "limits")

    def __init__(self, limits: BodyLimits) -> None:
        self.limits = limits
        self.held = 0  # bytes
        self._crowded = limits.together * _TIMES_THE_REST // (_TIMES_THE_REST + 1)  # below it, nobody has too much
        self._by_tenant: dict[int, _Share] = {}  # by their id(): hashing a tenant takes longer than all the rest

    def require(self, size: int, tenant: Any) -> None:
        """Raises BodyError where a body of `size` bytes is too large, or cannot be held for a tenant now."""
        if size > self.limits.each:
            raise _too_large(size, self.limits)
        if self.held + size > self._crowded:
            self._require_room(size, tenant, 0)

    def take(self, count: int, tenant: Any, own: int) -> None:
        """Count bytes as held. Raises BodyError where they are too many. `own`: held for the same request before."""
        if self.held + count > self._crowded:
            self._require_room(count, tenant, own)
        self.held += count
        share = self._by_tenant.get(id(tenant))
        if share is None:
            share = self._by_tenant[id(tenant)] = _Share(tenant)
        share.held += count

    def release(self, count: int, tenant: Any) -> None:
        """Count bytes that were taken as held no longer."""
        self.held -= count
        share = self._by_tenant[id(tenant)]
        share.held -= count
        if not share.held and len(self._by_tenant) > _MOST_EMPTY:
            del self._by_tenant[id(tenant)]

    def _require_room(self, count: int, tenant: Any, own: int) -> None:
        left = self.limits.together - self.held - count
        if left < 0:
            raise _full("the router holds as many request bodies as it can")
        share = self._by_tenant.get(id(tenant))
        if share is not None and share.held > own and share.held + count > _TIMES_THE_REST * left:
            raise _full("the router holds as many bodies of your requests as others leave room for")


@dataclass(slots=True)
class _Share:
    """What one tenant holds. The tenant is kept, so that its id() is nobody else's."""

    tenant: Any
    held: int = 0  # bytes


class Held:
    """What is held of one request's body."""

    __slots__ = ("_bodies", "_parts", "_small", "_tenant", "count", "size")

    def __init__(self, bodies: Bodies, tenant: Any) -> None:
        self._bodies, self._tenant = bodies, tenant
        self._parts: list[bytes | bytearray] = []
        self._small: bytearray | None = None  # the last part, if more may be added to it
        self.size = 0  # bytes received
        self.count = 0  # bytes that count as held, with what was decompressed

    def add(self, data: bytes) -> None:
        """Take some of the body. Raises BodyError."""
        size = len(data)
        self.size += size
        bodies = self._bodies
        if self.size > bodies.limits.each:
            raise _too_large(self.size, bodies.limits)
        bodies.take(size, self._tenant, self.count)
        self.count += size
        if size > _SMALL or not self._parts:
            self._parts.append(data)
            self._small = None
        elif self._small is not None:
            self._small += data
        else:
            self._small = bytearray(data)
            self._parts.append(self._small)

    def take(self, count: int) -> None:
        """Count bytes of the decompressed body as held. Raises BodyError where they are too many."""
        self._bodies.take(count, self._tenant, self.count)
        self.count += count

    def joined(self) -> bytes:
        """The body as it was sent."""
        parts = self._parts
        first = parts[0] if len(parts) == 1 else b""
        body = first if isinstance(first, bytes) and first else b"".join(parts)
        parts.clear()
        self._small = None
        return body

    def release(self) -> None:
        """Hold nothing more."""
        if self.count:
            self._bodies.release(self.count, self._tenant)
            self.count = 0
        self._parts.clear()
        self._small = None


def _too_large(size: int, limits: BodyLimits) -> BodyError:
    return BodyError(413, f"the body has {size} bytes or more: expected at most {limits.each}")


def _full(reason: str) -> BodyError:
    return BodyError(503, f"{reason}; send this one again later")
