"""The endpoint that a batch talks to: any that speaks OpenAI's API; of slurminfer's own it also asks the capacity."""

import asyncio
import io
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import msgspec

from ...core.sockets import watchful_socket
from .retry import parse_retry_after

_CONNECT_TIMEOUT_S = 10.0
_ASIDE = aiohttp.ClientTimeout(total=20.0, sock_connect=_CONNECT_TIMEOUT_S)
# Below the 5 s after which uvicorn closes idle connections.
_KEEPALIVE_S = 2.0
_MESSAGE_LIMIT = 2000


class UnreachableError(Exception):
    """No whole answer came."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    body: bytes
    request_id: str | None
    retry_after_s: float

    @property
    def message(self) -> str:
        """What an error answer says: OpenAI's message where it has that shape, else its text."""
        try:
            return msgspec.json.decode(self.body, type=_ErrorBody).error.message
        except msgspec.DecodeError:
            return self.body.decode(errors="replace").strip()[:_MESSAGE_LIMIT]


class Endpoint:
    """One HTTP client. Generation has no time limit: a long one is not a hung one."""

    def __init__(self, url: str, key: str | None, locate: Callable[[], str | None] | None) -> None:
        self.url = _root(url)
        self._locate = locate
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S, socket_factory=watchful_socket),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def post(self, path: str, body: bytes) -> Reply:
        """Send one request. Raises UnreachableError where no answer came, or only the beginning of one."""
        # BytesIO: aiohttp warns about large bodies given as bytes.
        return await self._ask("POST", path, data=io.BytesIO(body), headers={"Content-Type": "application/json"})

    async def get(self, path: str) -> Reply:
        """Ask for something small. Raises UnreachableError."""
        return await self._ask("GET", path, timeout=_ASIDE)

    async def capacity(self) -> int | None:
        """Requests that all ready workers together compute at once; None where the endpoint does not tell.

        Raises UnreachableError.
        """
        reply = await self.get("/workers")
        try:
            workers = msgspec.json.decode(reply.body, type=_Workers).workers
        except msgspec.DecodeError:
            return None
        return sum(worker.capacity or _UNKNOWN_CAPACITY for worker in workers if worker.usable)

    async def relocate(self) -> None:
        """Look where the endpoint is now: a router that was requeued has another address."""
        if self._locate is not None:
            url = await asyncio.to_thread(self._locate)
            self.url = _root(url) if url else self.url

    async def _ask(self, method: str, path: str, **options: object) -> Reply:
        try:
            async with self._client.request(method, self.url + path, **options) as answer:  # type: ignore[arg-type]
                body = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(str(error) or type(error).__name__) from error
        wait = parse_retry_after(answer.headers.get("Retry-After"), time.time())
        return Reply(answer.status, body, answer.headers.get("X-Request-Id"), wait)


# Stands in for the capacity that a worker does not know; see also the router's own.
_UNKNOWN_CAPACITY = 32


class _Error(msgspec.Struct):
    message: str


class _ErrorBody(msgspec.Struct):
    error: _Error


class _Card(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Card]


class _Worker(msgspec.Struct):
    state: str
    healthy: bool
    capacity: int | None = None

    @property
    def usable(self) -> bool:
        return self.healthy and self.state == "ready"


class _Workers(msgspec.Struct):
    workers: list[_Worker]


def model_names(reply: Reply) -> list[str]:
    """The names in an answer of /v1/models; none where it is not one."""
    try:
        return [card.id for card in msgspec.json.decode(reply.body, type=_Models).data]
    except msgspec.DecodeError:
        return []


def _root(url: str) -> str:
    """The part of an endpoint's address before /v1."""
    return url.rstrip("/").removesuffix("/v1")
