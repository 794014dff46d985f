"""Bodies of requests in memory: each up to a bound, and all of them together."""

from dataclasses import dataclass

from ...core.net.compression import BodyError


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """How much of requests' bodies may be held."""

    each: int = 64 * 2**20  # bytes of one, as sent and decompressed
    together: int = 2**30  # bytes of all that are not answered yet


class Bodies:
    """Knows how much is held of the bodies of all requests until they are answered."""

    __slots__ = ("held", "limits")

    def __init__(self, limits: BodyLimits) -> None:
        self.limits = limits
        self.held = 0  # bytes

    def require_room(self, count: int) -> None:
        """Raises BodyError where a body that has `count` bytes, as its head says, cannot be held."""
        if count > self.limits.each:
            raise BodyError(413, f"the body has {count} bytes: expected at most {self.limits.each}")
        if self.held + count > self.limits.together:
            raise _full()


class Held:
    """What is held of one request's body."""

    __slots__ = ("_bodies", "_parts", "count", "size")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._parts: list[bytes] = []
        self.size = 0  # bytes received
        self.count = 0  # bytes that count as held, with what was decompressed

    def add(self, data: bytes) -> None:
        """Take some of the body. Raises BodyError."""
        self._parts.append(data)
        self.size += len(data)
        if self.size > self._bodies.limits.each:
            raise BodyError(413, f"the body is too large: expected at most {self._bodies.limits.each} bytes")
        self.take(len(data))

    def take(self, count: int) -> None:
        """Count bytes as held. Raises BodyError where they are too many."""
        if self._bodies.held + count > self._bodies.limits.together:
            raise _full()
        self._bodies.held += count
        self.count += count

    def joined(self) -> bytes:
        """The body as it was sent."""
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return body

    def release(self) -> None:
        """Hold nothing more."""
        self._bodies.held -= self.count
        self.count = 0
        self._parts.clear()


def _full() -> BodyError:
    return BodyError(503, "the router holds as many request bodies as it can; send this one again later")
