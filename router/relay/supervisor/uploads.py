"""Requests whose bodies are too large to be held: streamed to the supervisor's pages, as fast as these write them."""

import asyncio
from pathlib import Path

import httptools

from ...http.heads import answer_headers, content_length, request_head
from ...http.messages import Body, BodyLostError, Head, Headers, Reply, Whole
from ...tenants.tenant import Tenant
from ..answers import failure

MOST_UPLOADS, MOST_OF_TENANT = 8, 4  # at once, of this relay
_LONGEST_S = 3600.0  # that one may take: a client that sends a byte now and then has its place for no longer
_MOST_ANSWER = 2**20  # bytes
_CONNECT_S = 3.0


class Uploads:
    """Forwards requests with large bodies.

    Args:
        socket: of the supervisor's pages.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._by_tenant: dict[str, int] = {}

    async def answer(self, head: Head, body: Body, reply: Reply) -> None:
        """Send a request on while its body comes, and answer it by the supervisor's answer."""
        tenant = head.tenant.name
        own = self._by_tenant.get(tenant, 0)
        if own >= MOST_OF_TENANT or sum(self._by_tenant.values()) >= MOST_UPLOADS:
            reply.whole(failure(503, "too many files are being uploaded at once", retry_after=2))
            return
        self._by_tenant[tenant] = own + 1
        try:
            async with asyncio.timeout(_LONGEST_S):
                reply.whole(await self._passed_on(head, body))
        except BodyLostError:
            pass  # nobody waits for an answer
        except TimeoutError:
            reply.whole(failure(408, f"the body did not come within {_LONGEST_S:g} s"))
        finally:
            self._by_tenant[tenant] -= 1
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]

    async def _passed_on(self, head: Head, body: Body) -> Whole:
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_unix_connection(str(self._socket))
        except (OSError, TimeoutError) as error:
            return _away(error)
        try:
            answering = asyncio.ensure_future(_read_all(reader))
            try:
                await _send(head, body, writer, answering)
                return _whole(await answering)
            finally:
                answering.cancel()
        except (OSError, httptools.HttpParserError, ValueError) as error:
            return _away(error)
        finally:
            writer.transport.abort()


async def _send(head: Head, body: Body, writer: asyncio.StreamWriter, answering: "asyncio.Future[bytes]") -> None:
    """Send the request, unless its answer comes before the end."""
    length = content_length(head.headers)
    writer.write(_head(head, length))
    try:
        while data := await _next(body, answering):
            writer.writelines([b"%x\r\n" % len(data), data, b"\r\n"] if length is None else [data])
            await writer.drain()
        if length is None:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
    except OSError:
        pass  # it has answered, and reads no more


async def _next(body: Body, answering: "asyncio.Future[bytes]") -> bytes:
    """Some more of the body; empty at its end, and where the answer is there before."""
    reading = asyncio.ensure_future(body.read())
    try:
        await asyncio.wait({reading, answering}, return_when=asyncio.FIRST_COMPLETED)
        return b"" if answering.done() else reading.result()
    finally:
        reading.cancel()


def _head(head: Head, length: int | None) -> bytes:
    tenant: Tenant = head.tenant
    begin = request_head(
        head.method, head.target, head.headers, host=b"supervisor", body_length=length, request_id=head.id
    )
    name, admin = tenant.name.encode(), tenant.admin
    return b"%bConnection: close\r\nX-Slurminfer-Tenant: %b\r\nX-Slurminfer-Admin: %d\r\n\r\n" % (begin, name, admin)


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    while data := await reader.read(_MOST_ANSWER):
        parts.append(data)
        if sum(map(len, parts)) > _MOST_ANSWER:
            raise ValueError("its answer is too long")
    return b"".join(parts)


def _whole(data: bytes) -> Whole:
    """The answer in what the supervisor has sent."""
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    parser.feed_data(data)
    if not answer.is_complete:
        raise ValueError("its answer broke off")
    return Whole(parser.get_status_code(), b"".join(answer.parts), answer_headers(answer.headers))


class _Answer:
    """The target of httptools' parser."""

    def __init__(self) -> None:
        self.headers: Headers = []
        self.parts: list[bytes] = []
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self.headers.append((name.lower(), value))

    def on_body(self, data: bytes) -> None:
        """Some of the body."""
        self.parts.append(data)

    def on_message_complete(self) -> None:
        """The end."""
        self.is_complete = True


def _away(error: Exception) -> Whole:
    return failure(503, f"the router's supervisor does not answer now: {error}", retry_after=2)
