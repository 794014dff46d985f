"""The embeddings that one client waits for: nobody reads them before the last is there."""

import asyncio
from collections.abc import Sequence

from ....core.errors import EngineError
from .request import Embedding, Request


class Embeddings:
    """The embeddings of the requests that were submitted together. Only for the event loop."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._ids = [request.id for request in requests]
        self._found: dict[str, bytes] = {}
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, embedding: Embedding) -> None:
        """Add what the engine has finished."""
        self._found[embedding.request.id] = embedding.vector
        if len(self._found) == len(self._ids) and not self._done.done():
            self._done.set_result(None)

    def fail(self, error: EngineError) -> None:
        """Let `wait` raise `error`."""
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # a client that has hung up does not look

    async def wait(self) -> list[bytes]:
        """The vectors in the order of the requests: float32, little-endian, not normalised.

        Raises EngineError if the engine has ended, RequestFailedError if it failed on a request.
        """
        await self._done
        return [self._found[id] for id in self._ids]
