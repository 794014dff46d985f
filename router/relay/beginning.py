"""The beginning of a worker's answer in memory, up to a bound: what is complete can still be replaced by an error."""

from .upstream import Answer, WorkerLostError

MOST_BYTES = 8 * 2**20


class Beginning:
    """What has come of an answer's body. `rest` goes on where `fill` has stopped."""

    def __init__(self, answer: Answer) -> None:
        self.rest = answer.chunks()
        self.is_all = False
        self.broken: WorkerLostError | None = None  # the body broke off, for this reason
        self._parts: list[bytes] = []

    def take(self) -> bytes:
        """What has been held so far, and is no longer."""
        parts, self._parts = self._parts, []
        return b"".join(parts)

    async def fill(self, most_bytes: int = MOST_BYTES) -> None:
        """Wait for the whole body, or for more than `most_bytes` of it."""
        size = 0
        try:
            async for chunk in self.rest:
                self._parts.append(chunk)
                size += len(chunk)
                if size > most_bytes:
                    return
        except WorkerLostError as error:
            self.broken = error
        else:
            self.is_all = True
