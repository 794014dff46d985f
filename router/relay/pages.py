"""Requests that are not for workers, such as /v1/models and /metrics: forwarded to the supervisor's pages."""

import asyncio
from collections.abc import Callable

from ..http.messages import ConnectError, Flow, Headers, Pool, Reply, Request
from .answers import failure
from .heads import answer_headers, request_head, request_headers

MOST_BYTES = 64 * 2**20


class Pages:
    """Forwards requests to the supervisor. `mark` adds to an answer's headers what every answer carries."""

    def __init__(self, pool: Pool, mark: Callable[[Request, Headers], None]) -> None:
        self._pool, self._mark = pool, mark

    async def answer(self, request: Request, reply: Reply) -> None:
        """Answer the request by the supervisor's page, or say that there is no supervisor now."""
        page = _Page(request, reply, self._mark)
        head = request.head
        flow: Flow | None = None
        try:
            flow = await self._pool.send(
                request_head(head.method, head.target, _who(request), request_headers(head), len(request.body)),
                request.body,
                page,
            )
            page.flow = flow
            await page.done
            flow = None
        except ConnectError as error:
            page.away(str(error))
        finally:
            if flow is not None:
                flow.abort()


def _who(request: Request) -> bytes:
    """The headers by which the supervisor knows whose request it is. The client's own of these names are dropped."""
    head, lines = request.head, [b"Host: supervisor\r\n"]
    if head.tenant is not None:
        lines.append(b"X-Slurminfer-Tenant: %b\r\n" % head.tenant.name.encode())
        lines.append(b"X-Slurminfer-Admin: %d\r\n" % head.tenant.admin)
    if head.private:
        lines.append(b"X-Slurminfer-Private: 1\r\n")
    return b"".join(lines)


class _Page:
    """The sink of a page: passes it on as it comes."""

    def __init__(self, request: Request, reply: Reply, mark: Callable[[Request, Headers], None]) -> None:
        self._request, self._reply, self._mark = request, reply, mark
        self._began = False
        self.flow: Flow | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_head(self, status: int, headers: Headers) -> None:
        """Begin the answer."""
        length = next((int(value) for name, value in headers if name == b"content-length"), None)
        kept = answer_headers(headers)
        self._mark(self._request, kept)
        self._began = True
        self._reply.begin(status, kept, length)

    def on_data(self, data: bytes) -> None:
        """Pass it on."""
        if not self._reply.write(data) and self.flow is not None:
            self.flow.pause()
            self._reply.on_writable = self.flow.resume

    def on_end(self) -> None:
        """End the answer."""
        self._reply.end()
        self._finish()

    def on_lost(self, error: Exception) -> None:
        """The supervisor has ended meanwhile, or says what is no HTTP."""
        if self._began:
            self._reply.abort()
        else:
            self.away(str(error))
        self._finish()

    def away(self, reason: str) -> None:
        """Say that there is no supervisor now."""
        answer = failure(503, f"the router's supervisor does not answer now: {reason}", retry_after=2)
        self._mark(self._request, answer.headers)
        self._reply.whole(answer)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
