"""How many requests may be under way, where that number changes meanwhile."""

import asyncio


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
        self._taken -= 1
        self._changed.set()
