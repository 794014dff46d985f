"""Requests that are not for workers, such as /v1/models and /metrics: forwarded to the supervisor's pages."""

import asyncio
from collections import Counter

from ...http.heads import answer_headers, content_length, request_head
from ...http.messages import ConnectError, Flow, Headers, Pool, Reply, Request
from ..answers import failure

# At once, of this relay. The supervisor has one thread, in which it looks after the workers too. Of one tenant, and of
# all who show no key, there are fewer: somebody may read a page, such as a file, as slowly as he likes.
MOST_PAGES, MOST_OF_TENANT, MOST_OPEN_PAGES = 64, 16, 16
_NOBODY = ""  # among the tenants: whoever shows no key


class Pages:
    """Forwards requests to the supervisor, not too many at once, nor of one tenant."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._asked = Counter[str]()  # by tenant

    async def answer(self, request: Request, reply: Reply) -> None:
        """Answer the request by the supervisor's page, or say that it does not answer now."""
        tenant, most = _who(request)
        if self._asked.total() >= MOST_PAGES or self._asked[tenant] >= most:
            reply.whole(failure(503, "too many requests for the router's pages at once", retry_after=1))
            return
        self._asked[tenant] += 1
        try:
            await pass_on(self._pool, _head(request), request.body, reply, "the router's supervisor")
        finally:
            self._asked[tenant] -= 1
            if not self._asked[tenant]:
                del self._asked[tenant]


def _who(request: Request) -> tuple[str, int]:
    """Whose request it is, and how many of theirs there may be. Our own programs have the deployment's own key."""
    tenant = request.head.tenant
    if tenant is None:
        return _NOBODY, MOST_OPEN_PAGES
    return tenant.name, MOST_PAGES - MOST_OPEN_PAGES if tenant.admin else MOST_OF_TENANT


async def pass_on(pool: Pool, head: bytes, body: bytes, reply: Reply, whom: str) -> None:
    """Answer a request by what `pool` answers, as it comes, or say that `whom` does not answer now."""
    answer = _Answer(reply, whom)
    flow: Flow | None = None
    try:
        flow = answer.flow = await pool.send(head, body, answer)
        await answer.done
        flow = None
    except ConnectError as error:
        answer.away(str(error))
    finally:
        answer.flow = None  # the two hold each other
        if flow is not None:
            flow.abort()


def _head(request: Request) -> bytes:
    """The request's head, and whose it is. The client's own headers of these names are left out."""
    head = request.head
    lines = [
        request_head(
            head.method, head.target, head.headers, host=b"supervisor", body_length=len(request.body),
            request_id=head.id,
        )
    ]  # fmt: skip
    if head.tenant is not None:
        lines.append(b"X-Slurminfer-Tenant: %b\r\n" % head.tenant.name.encode())
        lines.append(b"X-Slurminfer-Admin: %d\r\n" % head.tenant.admin)
    return b"".join(lines)


class _Answer:
    """The sink of an answer: passes it on as it comes."""

    def __init__(self, reply: Reply, whom: str) -> None:
        self._reply, self._whom = reply, whom
        self._began = False
        self.flow: Flow | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_head(self, status: int, headers: Headers) -> None:
        """Begin the answer."""
        self._began = True
        self._reply.begin(status, answer_headers(headers), content_length(headers))

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
        """Whoever answers has ended meanwhile, or says what is no HTTP."""
        if self._began:
            self._reply.abort()
        else:
            self.away(str(error))
        self._finish()

    def away(self, reason: str) -> None:
        """Say that nobody answers now."""
        answer = failure(503, f"{self._whom} does not answer now: {reason}", retry_after=2)
        self._reply.whole(answer)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
