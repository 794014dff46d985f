"""How many requests of a batch are under way at once, fitted to the workers that answer them."""

import asyncio
import math
from contextlib import suppress

from .endpoint import Endpoint, UnreachableError

LEAST_CONCURRENCY = 4
# Some more than the workers compute at once, so that none of them waits for us.
_QUEUE_AHEAD = 1.25
_UNKNOWN_CONCURRENCY = 32
_FIT_INTERVAL_S = 3.0


class Slots:
    """A semaphore whose size can be set. For one waiter, which hands out the slots."""

    def __init__(self, size: int) -> None:
        self._size, self._taken = size, 0
        self._changed = asyncio.Event()

    def resize(self, size: int) -> None:
        """Slots that are taken beyond the new size stay so until they are released."""
        self._size = size
        self._changed.set()

    async def take(self) -> None:
        """Wait for a free slot."""
        while self._taken >= self._size:
            self._changed.clear()
            await self._changed.wait()
        self._taken += 1

    def release(self) -> None:
        """Give a slot back that `take` has handed out."""
        self._taken -= 1
        self._changed.set()


async def fit_to_workers(slots: Slots, endpoint: Endpoint) -> None:
    """Resize the slots as workers come and go, until cancelled; once only where the endpoint does not tell."""
    while True:
        with suppress(UnreachableError):
            capacity = await endpoint.capacity()
            if capacity is None:
                return slots.resize(_UNKNOWN_CONCURRENCY)
            slots.resize(max(LEAST_CONCURRENCY, math.ceil(capacity * _QUEUE_AHEAD)))
        await asyncio.sleep(_FIT_INTERVAL_S)
