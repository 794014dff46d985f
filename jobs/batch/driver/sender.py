"""One row through the endpoint, tried until it has an answer or an error that stays."""

import asyncio
import itertools
import random
import re
import time
from collections.abc import Awaitable, Callable

import msgspec

from ....core.errors import BatchError
from ..ledger.record import Record
from ..outputs.answers import MalformedAnswerError, NoTextError, content_of, make_record
from .concurrency import Concurrency
from .endpoint import Endpoint, model_names
from .http.reply import AnswerTooLongError, Reply, UnreachableError
from .retry import Patience, Verdict, delay_s, judge, most_failures
from .suspects import Crash, Crashes, History, Suspects
from .work import Work

_CROWDED = frozenset({408, 429, 503, 504})  # the endpoint has no room, or is too slow
_ALL_BROKEN_S = 0.1  # within which all connections to an endpoint that has died have broken off
_NAMES_N = re.compile(r"\bn\b")


class AgainError(Exception):
    """An attempt settled nothing. `failed`: the endpoint tried this very row, and could not.

    `crash`: its connection broke off before the answer was complete, perhaps together with those of others.
    """

    def __init__(
        self, why: str, *, status: int | None = None, retry_after_s: float = 0.0, failed: bool = False
    ) -> None:
        self.status, self.retry_after_s, self.failed = status, retry_after_s, failed
        self.crash: Crash | None = None
        super().__init__(why)


class _RefusedError(Exception):
    """The endpoint refuses the row: its own fault."""

    def __init__(self, why: str, status: int | None) -> None:
        self.status = status
        super().__init__(why)


class Sender:
    """Sends rows to an endpoint. To be made in a running event loop.

    Args:
        in_flight: how many requests are under way.
        on_retry: called when a request is to be sent again.
        waits_for_holes: 503 and 429 never end the batch.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        concurrency: Concurrency,
        in_flight: Callable[[], int],
        on_retry: Callable[[], None],
        *,
        samples: int,
        patience_s: float,
        waits_for_holes: bool,
    ) -> None:
        self._endpoint, self._concurrency, self._in_flight = endpoint, concurrency, in_flight
        self._on_retry = on_retry
        self._samples, self._waits_for_holes = samples, waits_for_holes
        self._patience = Patience(patience_s)
        self._model: bytes | None = None  # as JSON
        self._asking: asyncio.Task[str] | None = None
        self._crashes, self._suspects = Crashes(asyncio.get_running_loop().time), Suspects()

    async def close(self) -> None:
        """Ask no more for the model."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def settle(self, work: Work) -> Record:
        """Send a row until it has an answer or an error. Raises BatchError where the batch cannot go on."""
        history = History()
        for attempt in itertools.count(1):
            try:
                return await self._try(work, history)
            except AgainError as again:
                if again.failed and history.is_over(most_failures(again.status)):
                    return _error(work, again.status, f"failed {history.failures} times: {again}")
                self._on_retry()
                await self._pause(attempt, again)
            except _RefusedError as refused:
                return _error(work, refused.status, str(refused))
            except AnswerTooLongError as error:
                return _error(work, None, str(error))
            except NoTextError as error:
                return _error(work, 200, str(error))
        raise AssertionError("unreachable")

    async def _try(self, work: Work, history: History) -> Record:
        if not history.is_suspect:
            return await self._attempt(work, history, 0)
        async with self._suspects.turn(history) as company:
            return await self._attempt(work, history, company)

    async def _attempt(self, work: Work, history: History, company: int) -> Record:
        try:
            return await self._converse(work)
        except AgainError as again:
            if again.crash is not None:
                await asyncio.sleep(_ALL_BROKEN_S)
            if again.failed:
                history.has_failed(again.crash, company)
            raise

    async def _only_model(self) -> bytes:
        if self._asking is None:  # once for all rows
            self._asking = asyncio.get_running_loop().create_task(self._ask_model())
        self._model = msgspec.json.encode(await asyncio.shield(self._asking))
        return self._model

    async def _ask_model(self) -> str:
        """The one model that the endpoint serves. Raises BatchError if there is a choice."""
        for attempt in itertools.count(1):
            try:
                reply = await self._answered(self._endpoint.get("/v1/models"))
            except AgainError as again:
                await self._pause(attempt, again)
                continue
            except (AnswerTooLongError, _RefusedError) as error:
                raise BatchError(f"{self._endpoint.url}/v1/models: {error}") from error
            names = model_names(reply)
            if len(names) != 1:
                there_are = ", ".join(names) or "no model that it names"
                raise BatchError(f"{self._endpoint.url} serves {there_are}; say which model to use")
            return names[0]
        raise AssertionError("unreachable")

    async def _converse(self, work: Work) -> Record:
        """All turns of a row, from the first one on."""
        body = work.body if work.has_model else _with_model(self._model or await self._only_model(), work.body)
        replies = [await self._ask(work.request.path, body)]
        try:
            if work.request.turns:
                await self._go_on(work, body, replies)
            bodies = [reply.body for reply in replies]
            return make_record(work.request, bodies, replies[-1].request_id, samples=self._samples)
        except MalformedAnswerError as error:
            raise AgainError(str(error), status=replies[-1].status, failed=True) from error

    async def _go_on(self, work: Work, first: bytes, replies: list[Reply]) -> None:
        body = msgspec.json.decode(first)
        for turn in work.request.turns:
            said = content_of(replies[-1].body)
            body["messages"] += [{"role": "assistant", "content": said}, {"role": "user", "content": turn}]
            replies.append(await self._ask(work.request.path, msgspec.json.encode(body)))

    async def _ask(self, path: str, body: bytes) -> Reply:
        sent_at, flight = time.monotonic(), self._crashes.sent()
        try:
            reply = await self._answered(self._endpoint.post(path, body))
        except AgainError as again:
            if again.failed and again.status is None:
                again.crash = self._crashes.broke_off(flight)
            if again.status in _CROWDED and not self._waits_for_holes:
                self._concurrency.refused(sent_at)
            raise
        finally:
            self._crashes.ended(flight)
        self._concurrency.answered(sent_at, len(reply.body) // 4, self._in_flight())
        return reply

    async def _answered(self, asked: Awaitable[Reply]) -> Reply:
        """An answer that says yes. Raises _RefusedError for no, AgainError for later, BatchError for a wrong key."""
        try:
            reply = await asked
        except UnreachableError as error:
            await self._endpoint.relocate()
            raise AgainError(str(error), failed=error.broken_off) from error
        if 200 <= reply.status < 300:
            self._patience.reward()
            return reply
        verdict = judge(reply.status, reply.code)
        if verdict is Verdict.LOCKED_OUT:
            raise BatchError(f"{self._endpoint.url} refuses the API key: {reply.message}")
        if verdict is Verdict.REFUSED:
            self._patience.reward()
            raise _RefusedError(self._explained(reply), reply.status)
        why, failed = f"HTTP {reply.status}: {reply.message}", verdict is Verdict.FAILED
        raise AgainError(why, status=reply.status, retry_after_s=reply.retry_after_s, failed=failed)

    def _explained(self, reply: Reply) -> str:
        message = reply.message
        if self._samples > 1 and reply.status in (400, 422) and _NAMES_N.search(message):
            return f"the endpoint refuses n = {self._samples} (samples): {message}"
        return message or f"HTTP {reply.status}"

    async def _pause(self, attempt: int, again: AgainError) -> None:
        if self._waits_for_holes and again.status is not None and not again.failed:
            self._patience.reward()
        else:
            self._patience.check(self._endpoint.url, str(again))
        await asyncio.sleep(delay_s(attempt, again.retry_after_s, random.random()))


def _error(work: Work, status: int | None, message: str) -> Record:
    return Record(index=work.request.index, key=work.request.key, status=status, error=message)


def _with_model(model: bytes, body: bytes) -> bytes:
    """The body, a JSON object, with the model before everything else."""
    return b'{"model":%b%b%b' % (model, b"" if body == b"{}" else b",", body[1:])
