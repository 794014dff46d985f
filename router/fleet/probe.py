"""Asking a worker how it is. Requests go out only after the other end has proven that it is ours.

On the worker's own node that is its engine's Unix socket, whose process must be of this user. From another node it is
TLS to the worker's gate, where both ends have the identity that only this user can read (core/net/identity.py).
"""

import errno
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from ...core.background.threads import in_thread
from ...core.errors import RunDirectoryError
from ...core.net.identity import client_context
from ...core.net.sockets import own_socket_fault, peer_uid, watchful_socket
from ...core.records import WorkerRecord
from ...core.rundir import RunDirectory

CONNECT_TIMEOUT_S = 3.0
# An engine whose event loop is held up by a long prefill answers late, not never.
_ANSWER_TIMEOUT_S = 5.0
LATE = f"/health gives no answer within {_ANSWER_TIMEOUT_S:g} s"  # though it has taken the connection
# Engines (uvicorn) close idle connections after 5 s: letting go earlier avoids sending into one that just closed.
_KEEPALIVE_S = 2.0
_MOST_BYTES = 2**20  # of an answer that is read
_TRANSPORT_ERRORS = (aiohttp.ClientError, OSError)  # OSError includes TimeoutError
# What a connection fails with where the fault is this machine's or this process's, not the worker's.
_OWN_FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
# What an engine answers that does not generate text, such as one for embeddings: no fault of it.
_CANNOT_GENERATE = frozenset({400, 404, 405, 422, 501})
_MESSAGES = [{"role": "user", "content": "1"}]


class OwnFaultError(Exception):
    """This process could not ask: it has no descriptors, ports or memory for a connection."""


class Probe:
    """The connections to one life of a worker, for questions of the router's own."""

    def __init__(self, connector: aiohttp.BaseConnector, origin: str, record: WorkerRecord) -> None:
        self._origin, self._model = origin, record.model
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"Authorization": f"Bearer {record.key}", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def health(self) -> str:
        """What is wrong by `/health`; empty if nothing is. Raises OwnFaultError."""
        try:
            status, _ = await self._ask("GET", "/health", _ANSWER_TIMEOUT_S)
        except aiohttp.ServerConnectionError as error:  # among them a TimeoutError: no connection in time
            return f"/health fails: {describe(error)}"
        except TimeoutError:
            return LATE
        except _TRANSPORT_ERRORS as error:
            return f"/health fails: {describe(error)}"
        return "" if status == 200 else f"/health answers {status}"

    async def card(self) -> dict[str, Any] | None:
        """What the worker says of its model in `/v1/models`: empty if that is nothing usable, None if it is silent."""
        try:
            _, text = await self._ask("GET", "/v1/models")
        except _TRANSPORT_ERRORS:
            return None
        return card_of(text, self._model)

    async def metrics(self) -> str | None:
        """The text of `/metrics`; None where there is none. Raises OwnFaultError."""
        try:
            status, text = await self._ask("GET", "/metrics")
        except _TRANSPORT_ERRORS:
            return None
        return text.decode(errors="replace") if status == 200 else None

    async def token(self, timeout_s: float, *, must_generate: bool = False) -> str:
        """Why the worker generates nothing; empty if a token came, or if its engine is none that generates text.

        `must_generate`: others of its model generate, so that the worker must too. Raises OwnFaultError.
        """
        trouble, is_refused = await self._token("/v1/completions", {"prompt": "1"}, timeout_s)
        if is_refused and must_generate:  # it may know only one of the two
            trouble, _ = await self._token("/v1/chat/completions", {"messages": _MESSAGES}, timeout_s)
            return trouble
        return "" if is_refused else trouble

    async def _token(self, path: str, prompt: dict[str, Any], timeout_s: float) -> tuple[str, bool]:
        """Why no token comes, and whether that is because the engine knows no such requests, or says so."""
        body = {"model": self._model, **prompt, "max_tokens": 1, "temperature": 0}
        try:
            status, text = await self._ask("POST", path, timeout_s, json=body)
        except TimeoutError:
            return f"it generates no token within {timeout_s:g} s", False
        except _TRANSPORT_ERRORS as error:
            return f"a request for a token fails: {describe(error)}", False
        if not 200 <= status < 300:
            return f"a request for a token is answered with {status}", status in _CANNOT_GENERATE
        return "" if _is_completion(text) else "a request for a token is answered with something else", False

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _ask(
        self, method: str, path: str, timeout_s: float = _ANSWER_TIMEOUT_S, **options: Any
    ) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        url = URL(self._origin + path, encoded=True)
        try:
            async with await self._session.request(method, url, timeout=timeout, **options) as answer:
                text = bytearray()
                while len(text) < _MOST_BYTES and (chunk := await answer.content.readany()):
                    text += chunk
                return answer.status, bytes(text)
        except OSError as error:
            if error.errno in _OWN_FAULTS:
                raise OwnFaultError(describe(error)) from error
            raise


async def probe_of(run: RunDirectory, record: WorkerRecord) -> Probe:
    """The way to the worker that `record` tells of; nothing is sent yet. Raises SlurminferError where there is none."""
    way = await in_thread(lambda: _way(run, record))  # a shared filesystem may stand still
    if isinstance(way, Path):
        return Probe(_OwnSocketConnector(way), "http://worker", record)
    assert record.url is not None
    try:
        URL(record.url, encoded=True)
    except ValueError as error:
        raise RunDirectoryError(f"no way to the worker: {record.url[:80]!r} is no URL: {error}") from error
    tls = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S, socket_factory=watchful_socket, ssl=way)
    return Probe(tls, record.url, record)


def card_of(text: bytes, model: str) -> dict[str, Any]:
    """The entry of `model` in the JSON that `/v1/models` answers; empty if there is none."""
    try:
        cards = msgspec.json.decode(text, type=_Models).data
    except (msgspec.DecodeError, RecursionError):
        return {}
    return next((card for card in cards if card.get("id") == model), {})


def describe(error: BaseException) -> str:
    """An exception in words; many network errors have none of their own."""
    return str(error) or type(error).__name__


def _is_completion(text: bytes) -> bool:
    try:
        choices = msgspec.json.decode(text, type=_Completion).choices
        return any(choice.text is not None or choice.message is not None for choice in choices)
    except (msgspec.DecodeError, RecursionError):
        return False


def _way(run: RunDirectory, record: WorkerRecord) -> Path | ssl.SSLContext:
    fault = f"the engine's socket is on {record.host}"
    if record.socket is not None and record.host == socket.gethostname():
        path = Path(record.socket)
        fault = own_socket_fault(path) or _unreachable(path)
        if not fault:
            return path
    if record.url is None:
        raise RunDirectoryError(f"no way to the worker: {fault}")
    if not record.url.startswith("https://"):
        raise RunDirectoryError(f"no way to the worker: expected https:// in its record, got {record.url[:80]!r}")
    return client_context(run.worker_identity_path(record.id, record.epoch))


def _unreachable(path: Path) -> str:
    """Why nobody answers at the socket, such as in a job with a private /tmp; empty if somebody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except OSError as error:
            return f"{path}: {error.strerror or error}"
    return ""


class _Choice(msgspec.Struct):
    text: str | None = None
    message: dict[str, Any] | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class _Models(msgspec.Struct):
    data: list[dict[str, Any]]


class _OwnSocketConnector(aiohttp.UnixConnector):
    """Connects to a Unix socket if the process that listens there is this user's."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), limit=0, keepalive_timeout=_KEEPALIVE_S)

    async def _create_connection(self, *args: Any, **options: Any) -> aiohttp.client_proto.ResponseHandler:
        protocol = await super()._create_connection(*args, **options)
        assert protocol.transport is not None
        uid = peer_uid(protocol.transport.get_extra_info("socket"))
        if uid != os.geteuid():
            protocol.close()
            raise aiohttp.ClientConnectionError(f"{self.path} is a socket of user {uid}, not of this one")
        return protocol
