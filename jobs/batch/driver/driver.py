"""The batch driver: every line of the input through an endpoint, every result into the output exactly once."""

import asyncio
import itertools
import random
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from ....core.errors import BatchError
from ....core.net.sockets import allow_many_sockets
from .concurrency import LEAST_CONCURRENCY, Slots, fit_to_workers
from .endpoint import Address, AnswerTooLongError, Endpoint, Reply, UnreachableError, check_key, check_url, model_names
from ..inputs.reader import reader_of
from ..inputs.request import BadLine, BatchRequest, Id
from ..ledger.previous import ErrorLog, Ledger
from ..outputs.answers import MalformedAnswerError, NoTextError, make_error, make_result
from .retry import Patience, Verdict, delay_s, judge, most_failures
from ..report.tally import BatchState, Tally

_TICK_S = 1.0
PATIENCE_S = 600.0  # without any answer, until a batch gives up


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What a batch reads and writes, where it sends its requests, and how."""

    input: Path  # in a format that inputs/reader.py knows
    output: Path
    endpoint: Address
    key: str | None = None
    model: str | None = None  # by default the endpoint's only one
    concurrency: int | None = None  # by default fitted to the workers
    defaults: Mapping[str, Any] = field(default_factory=dict)  # such as max_tokens, for lines that do not say
    patience_s: float = PATIENCE_S  # without any answer, until the batch gives up
    locate: Callable[[], Address | None] | None = None  # where the endpoint is now, asked again and again
    waits_for_holes: bool = False  # 503 and 429 never end the batch: workers come when the scheduler has room


@dataclass(frozen=True, kw_only=True)
class BatchSummary:
    """How a batch ended."""

    total: int  # lines of the input that are not blank
    done: int  # of which have a result, earlier ones included
    skipped: int  # of which had it before
    failed: int  # of which have none, for the reasons in `errors`
    tokens: int  # generated this time
    elapsed_s: float
    output: Path
    errors: Path | None


def run_batch(options: BatchOptions, progress: Callable[[BatchState], None]) -> BatchSummary:
    """Do the whole batch; `progress` is called about every second and at the end.

    Killed at any point and called again, it goes on where it was. Raises BatchError where it cannot go on: another
    driver at work, an output of something else, no space, a wrong key, or an endpoint that stays away for
    `patience_s`; whatever was written by then stays. Raises UsageError for an endpoint or a key that cannot be one.
    """
    check_url(options.endpoint.url)
    check_key(options.key)
    _check_paths(options)
    allow_many_sockets()
    with Ledger(options.output) as ledger:
        return uvloop.run(_run(options, ledger, progress))


async def _run(options: BatchOptions, ledger: Ledger, progress: Callable[[BatchState], None]) -> BatchSummary:
    errors = ErrorLog(options.output)
    tally = Tally(await asyncio.to_thread(reader_of(options.input).count, options.input))
    endpoint = Endpoint(options.endpoint, options.key, options.locate)
    try:
        await _Driver(options, ledger, errors, endpoint, tally).drive(progress)
    finally:
        await endpoint.close()
        errors.close()
        await asyncio.to_thread(ledger.sync)
        progress(tally.state())
    return BatchSummary(
        total=tally.total,
        done=tally.done,
        skipped=tally.skipped,
        failed=tally.failed,
        tokens=tally.tokens,
        elapsed_s=tally.elapsed_s,
        output=options.output,
        errors=errors.path if tally.failed else None,
    )


class _Driver:
    """One run over the input."""

    def __init__(
        self, options: BatchOptions, ledger: Ledger, errors: ErrorLog, endpoint: Endpoint, tally: Tally
    ) -> None:
        self._options, self._ledger, self._errors = options, ledger, errors
        self._endpoint, self._tally = endpoint, tally
        self._patience = Patience(options.patience_s)
        self._slots = Slots(options.concurrency or LEAST_CONCURRENCY)

    async def drive(self, progress: Callable[[BatchState], None]) -> None:
        """Send every line that has no result yet, and wait for all of them."""
        with _first_batch_error():
            async with asyncio.TaskGroup() as group:
                aside = [group.create_task(self._tick(progress)), group.create_task(self._endpoint.follow())]
                if self._options.concurrency is None:
                    aside.append(group.create_task(fit_to_workers(self._slots, self._endpoint)))
                await self._send_all()
                for task in aside:
                    task.cancel()

    async def _send_all(self) -> None:
        model = self._options.model
        async with asyncio.TaskGroup() as group:
            for request in self._unfinished():
                model = model or await self._only_model()
                body = msgspec.json.encode(request.with_defaults(model, self._options.defaults))
                await self._slots.take()
                group.create_task(self._complete(request, body))

    def _unfinished(self) -> Iterator[BatchRequest]:
        """The lines that are to be sent. Bad ones are reported, finished ones counted."""
        seen: set[Id] = set()
        for request in reader_of(self._options.input).read(self._options.input):
            if isinstance(request, BadLine):
                self._fail(request.line, request.id, None, request.message)
            elif request.id in seen:
                self._fail(request.line, request.id, None, f"id {request.id!r} has occurred before")
            else:
                seen.add(request.id)
                if request.id in self._ledger.finished:
                    self._tally.skip()
                else:
                    yield request

    async def _complete(self, request: BatchRequest, body: bytes) -> None:
        """Send one line until it has a result or an error."""
        failures = 0
        try:
            for attempt in itertools.count(1):
                try:
                    return await self._attempt(request, body)
                except _AgainError as again:
                    failures += again.failed
                    if again.failed and failures >= most_failures(again.status):
                        return self._fail(request.line, request.id, again.status, f"failed {failures} times: {again}")
                    await self._pause(attempt, again)
        finally:
            self._slots.release()

    async def _attempt(self, request: BatchRequest, body: bytes) -> None:
        try:
            reply = await self._settled(self._endpoint.post(request.path, body))
        except AnswerTooLongError as error:
            return self._fail(request.line, request.id, None, str(error))
        if judge(reply.status, reply.code) is Verdict.REFUSED:
            return self._fail(request.line, request.id, reply.status, reply.message)
        try:
            line, tokens = make_result(request, reply.body, reply.request_id)
        except NoTextError as error:
            return self._fail(request.line, request.id, reply.status, str(error))
        except MalformedAnswerError as error:
            raise _AgainError(str(error), status=reply.status, failed=True) from error
        self._ledger.append(line)
        self._tally.finish(tokens)

    async def _settled(self, asked: Awaitable[Reply]) -> Reply:
        """An answer that says yes or no. Raises _AgainError for one that says later, BatchError for a wrong key."""
        try:
            reply = await asked
        except UnreachableError as error:
            await self._endpoint.relocate()
            raise _AgainError(str(error)) from error
        verdict = judge(reply.status, reply.code)
        if verdict is Verdict.LOCKED_OUT:
            raise BatchError(f"{self._endpoint.url} refuses the API key: {reply.message}")
        if verdict in (Verdict.WAIT, Verdict.FAILED):
            why = f"HTTP {reply.status}: {reply.message}"
            failed = verdict is Verdict.FAILED
            raise _AgainError(why, status=reply.status, retry_after_s=reply.retry_after_s, failed=failed)
        self._patience.reward()
        return reply

    async def _pause(self, attempt: int, again: "_AgainError") -> None:
        if self._options.waits_for_holes and again.status is not None and not again.failed:
            self._patience.reward()
        else:
            self._patience.check(self._endpoint.url, str(again))
        await asyncio.sleep(delay_s(attempt, again.retry_after_s, random.random()))

    async def _only_model(self) -> str:
        """The one model that the endpoint serves. Raises BatchError if there is a choice."""
        for attempt in itertools.count(1):
            try:
                reply = await self._settled(self._endpoint.get("/v1/models"))
            except _AgainError as again:
                await self._pause(attempt, again)
                continue
            except AnswerTooLongError as error:
                raise BatchError(f"{self._endpoint.url}/v1/models: {error}") from error
            names = model_names(reply)
            if len(names) != 1:
                there_are = ", ".join(names) or "no model that it names"
                raise BatchError(f"{self._endpoint.url} serves {there_are}; say which model to use")
            return names[0]
        raise AssertionError("unreachable")

    def _fail(self, line: int, id: Id | None, status: int | None, message: str) -> None:
        self._errors.append(make_error(line, id, status, message))
        self._tally.fail()

    async def _tick(self, progress: Callable[[BatchState], None]) -> None:
        while True:
            progress(self._tally.state())
            await asyncio.sleep(_TICK_S)
            await asyncio.to_thread(self._ledger.sync)


class _AgainError(Exception):
    """An attempt settled nothing. `failed`: the endpoint tried this very line, and could not."""

    def __init__(
        self, why: str, *, status: int | None = None, retry_after_s: float = 0.0, failed: bool = False
    ) -> None:
        self.status, self.retry_after_s, self.failed = status, retry_after_s, failed
        super().__init__(why)


@contextmanager
def _first_batch_error() -> Iterator[None]:
    """Many tasks may find the disk full or the key wrong at once; one telling is enough."""
    try:
        yield
    except BaseExceptionGroup as group:
        found: BaseException | None = group.subgroup(BatchError)
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise found or group from group


def _check_paths(options: BatchOptions) -> None:
    try:
        found = options.input.stat()
        same = options.output.exists() and options.output.samefile(options.input)
    except FileNotFoundError as error:
        raise BatchError(f"no input file {options.input}") from error
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise BatchError(f"cannot read {options.input}: {error}") from error
    if stat.S_ISDIR(found.st_mode):
        raise BatchError(f"input {options.input} is a directory: expected a file")
    if not stat.S_ISREG(found.st_mode):
        raise BatchError(f"input {options.input} is a pipe or a device: expected a file, which can be read again")
    if same:
        raise BatchError(f"{options.output} is the input; choose another output")
