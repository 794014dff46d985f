"""The endpoint that a batch talks to: any that speaks OpenAI's API."""

import asyncio
from collections.abc import Callable

import msgspec

from ....core.net.openai import ON_BEHALF_HEADER, PRIORITY_HEADER
from ....router.http.messages import ConnectError
from .address import Address
from .http.pool import EndpointPool
from .http.reply import Held, Receiver, Reply, UnreachableError

_ASIDE_S = 20.0  # for an answer to something small
_FOLLOW_S = 2.0
_BATCH = f"{PRIORITY_HEADER}: batch\r\nContent-Type: application/json\r\n".encode()


class Endpoint:
    """One HTTP client, to be made in a running event loop.

    Generation has no time limit: a long one is not a hung one.
    """

    def __init__(
        self,
        address: Address,
        key: str | None,
        locate: Callable[[], Address | None] | None,
        on_behalf_of: str | None = None,
    ) -> None:
        self._address, self._locate = address, locate
        self._loop = asyncio.get_running_loop()
        self._pool, self._held = EndpointPool(address), Held()
        self._locating: asyncio.Task[None] | None = None
        self._lines = b"Accept: application/json\r\nUser-Agent: slurminfer-batch\r\n"
        if key:
            self._lines += f"Authorization: Bearer {key}\r\n".encode()
        if on_behalf_of:
            self._lines += f"{ON_BEHALF_HEADER}: {on_behalf_of}\r\n".encode()

    @property
    def url(self) -> str:
        """The part of its address before /v1."""
        return self._address.root

    def close(self) -> None:
        """Close all connections that are idle, and the others as they become idle."""
        self._pool.close()

    async def post(self, path: str, body: bytes) -> Reply:
        """Send one request. slurminfer's router computes it when no more urgent ones wait.

        Raises UnreachableError where no answer came, or only the beginning of one, and AnswerTooLongError.
        """
        return await self._ask(self._pool.head("POST", path, self._lines + _BATCH, len(body)), body)

    async def get(self, path: str) -> Reply:
        """Ask for something small. Raises UnreachableError, AnswerTooLongError."""
        try:
            async with asyncio.timeout(_ASIDE_S):
                return await self._ask(self._pool.head("GET", path, self._lines, 0), b"")
        except TimeoutError as error:
            raise UnreachableError(f"no answer of {path} within {_ASIDE_S:g} s") from error

    async def relocate(self) -> None:
        """Look where the endpoint is now, after it did not answer: a router that was requeued has another address."""
        if self._locate is None:
            return
        if self._locating is None:  # many requests fail at once
            self._locating = self._loop.create_task(self._look(self._locate))
        await asyncio.shield(self._locating)

    async def follow(self) -> None:
        """Send requests to another router as soon as it has taken over from the one before. Until cancelled."""
        while self._locate is not None:
            await asyncio.sleep(_FOLLOW_S)
            found = await asyncio.to_thread(self._locate)
            if found is not None and found.url != self._address.url:
                self._move(found)

    async def _look(self, locate: Callable[[], Address | None]) -> None:
        try:
            found = await asyncio.to_thread(locate)
        finally:
            self._locating = None
        if found is not None and found != self._address:
            self._move(found)

    def _move(self, found: Address) -> None:
        self._pool.close()
        self._address, self._pool = found, EndpointPool(found)

    async def _ask(self, head: bytes, body: bytes) -> Reply:
        receiver = Receiver(self._loop, self._held)
        flow = self._pool.try_send(head, body, receiver)
        if flow is None:
            try:
                flow = await self._pool.send(head, body, receiver)
            except ConnectError as error:
                raise UnreachableError(str(error)) from error
        receiver.flow = flow
        try:
            return await receiver.done
        except asyncio.CancelledError:
            flow.abort()
            raise
        finally:
            receiver.let_go()


class _Card(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Card]


def model_names(reply: Reply) -> list[str]:
    """The names in an answer of /v1/models; none where it is not one."""
    try:
        return [card.id for card in msgspec.json.decode(reply.body, type=_Models).data]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
