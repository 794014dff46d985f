"""The endpoint that a batch talks to: any that speaks OpenAI's API; of slurminfer's own it also asks the capacity."""

import asyncio
import io
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from ....core.errors import UsageError
from ....core.net.openai import PRIORITY_HEADER, REQUEST_ID_HEADER
from ....core.net.sockets import watchful_socket
from ....router.fleet.worker import ASSUMED_CAPACITY
from .retry import parse_retry_after

_CONNECT_TIMEOUT_S = 10.0
_ASIDE = aiohttp.ClientTimeout(total=20.0, sock_connect=_CONNECT_TIMEOUT_S)
# Below the 5 s after which uvicorn closes idle connections.
_KEEPALIVE_S = 2.0
_FOLLOW_S = 2.0
_MOST_AHEAD = 1024  # requests that wait for workers which are not there yet
_MESSAGE_LIMIT = 2000
_BYTES_LIMIT = 4 * _MESSAGE_LIMIT
# A body beyond this is no answer to a line of a batch, and many of them are in memory at once.
LONGEST_ANSWER = 64 * 1024 * 1024
_Shape = TypeVar("_Shape")


class UnreachableError(Exception):
    """No whole answer came."""


class AnswerTooLongError(Exception):
    """An answer has more than LONGEST_ANSWER bytes."""


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
        said = _decode(self.body, _ErrorBody)
        text = said.error.message if said else self.body[:_BYTES_LIMIT].decode(errors="replace").strip()
        return text[:_MESSAGE_LIMIT]

    @property
    def code(self) -> str | None:
        """The code of an error answer in OpenAI's shape, if it has one."""
        said = _decode(self.body, _ErrorBody)
        return said.error.code if said and isinstance(said.error.code, str) else None


@dataclass(frozen=True, slots=True)
class Address:
    """Where an endpoint is, and how it proves itself."""

    url: str  # http(s)://HOST:PORT, with or without /v1
    tls: ssl.SSLContext | None = None  # None: as the web does, for an https URL


class Endpoint:
    """One HTTP client. Generation has no time limit: a long one is not a hung one."""

    def __init__(self, address: Address, key: str | None, locate: Callable[[], Address | None] | None) -> None:
        self._address, self._locate = address, locate
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S, socket_factory=watchful_socket),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    @property
    def url(self) -> str:
        """The part of its address before /v1."""
        return self._address.url.rstrip("/").removesuffix("/v1")

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def post(self, path: str, body: bytes) -> Reply:
        """Send one request. slurminfer's router computes it when no more urgent ones wait.

        Raises UnreachableError where no answer came, or only the beginning of one, and AnswerTooLongError.
        """
        # BytesIO: aiohttp warns about large bodies given as bytes.
        headers = {"Content-Type": "application/json", PRIORITY_HEADER: "batch"}
        return await self._ask("POST", path, data=io.BytesIO(body), headers=headers)

    async def get(self, path: str) -> Reply:
        """Ask for something small. Raises UnreachableError."""
        return await self._ask("GET", path, timeout=_ASIDE)

    async def capacity(self) -> int | None:
        """Requests that the ready workers together compute at once; None where the endpoint does not tell.

        Of a deployment with backfill pools some more, for which workers would be started. Raises UnreachableError.
        """
        try:
            told = _decode((await self.get("/workers")).body, _Workers)
        except AnswerTooLongError:
            return None
        if told is None:
            return None
        ready = sum(worker.capacity or ASSUMED_CAPACITY for worker in told.workers if worker.usable)
        return ready + min(told.may_be_added, _MOST_AHEAD)

    async def relocate(self) -> None:
        """Look where the endpoint is now: a router that was requeued has another address."""
        if self._locate is not None:
            found = await asyncio.to_thread(self._locate)
            self._address = found or self._address

    async def follow(self) -> None:
        """Send requests to another router as soon as it has taken over from the one before. Until cancelled."""
        while self._locate is not None:
            await asyncio.sleep(_FOLLOW_S)
            found = await asyncio.to_thread(self._locate)
            if found is not None and found.url != self._address.url:
                self._address = found

    async def _ask(self, method: str, path: str, **options: object) -> Reply:
        tls = self._address.tls or True
        try:
            async with self._client.request(method, self.url + path, ssl=tls, **options) as answer:  # type: ignore[arg-type]
                body = await _read(answer)
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(str(error) or type(error).__name__) from error
        wait = parse_retry_after(answer.headers.get("Retry-After"), time.time())
        return Reply(answer.status, body, _text(answer.headers.get(REQUEST_ID_HEADER)), wait)


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in answer.content.iter_any():
        body += part
        if len(body) > LONGEST_ANSWER:
            answer.close()
            raise AnswerTooLongError(f"the answer is longer than {LONGEST_ANSWER // 1024**2} MiB")
    return bytes(body)


def _text(header: str | None) -> str | None:
    """A header's value as text: aiohttp keeps bytes that are not UTF-8 as halves of surrogate pairs."""
    return None if header is None else header.encode(errors="surrogateescape").decode(errors="replace")


class _Error(msgspec.Struct):
    message: str
    code: Any = None


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
    may_be_added: int = 0


def model_names(reply: Reply) -> list[str]:
    """The names in an answer of /v1/models; none where it is not one."""
    told = _decode(reply.body, _Models)
    return [card.id for card in told.data] if told else []


def check_url(url: str) -> None:
    """Raise UsageError for what is not the address of an endpoint."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise UsageError(f"endpoint = {url!r}: expected a URL such as http://HOST:PORT/v1")


def check_key(key: str | None) -> None:
    """Raise UsageError for a key that no HTTP header can hold."""
    if key is not None and not (key.isascii() and key.isprintable()):
        raise UsageError("the API key has characters that are not printable ASCII, such as the end of a line")


def _decode(body: bytes, shape: type[_Shape]) -> _Shape | None:
    """A body of that shape, or None."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
