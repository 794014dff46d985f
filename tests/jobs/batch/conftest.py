"""A stub of an OpenAI endpoint (a real HTTP server that computes nothing) with faults that the test orders."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from slurminfer.jobs.batch.driver import retry
from slurminfer.jobs.batch.driver.address import Address
from slurminfer.jobs.batch.driver.driver import run_batch
from slurminfer.jobs.batch.driver.options import BatchOptions, BatchSummary
from slurminfer.jobs.batch.outputs.export import OutputOptions

from ...support.loop import Loop

KEY = "secret"


class Endpoint:
    """`faults[prompt]` are taken one by one before that prompt gets its answer.

    A fault is a status, "cut", "drop" or "mush", or an answer to send.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.models = ["stub"]
        self.workers: list[dict[str, Any]] | None = None
        self.may_be_added = 0
        self.metrics: str | None = None
        self.faults: dict[str, list[int | str | web.Response]] = {}
        self.retry_after: str | None = None
        self.delay_s = 0.0
        self.answers = asyncio.Event()  # cleared: requests wait
        self.answers.set()
        self.answered: Counter[str] = Counter()
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.priorities: set[str | None] = set()
        self.under_way = self.most_under_way = 0
        self.port = 0
        self.start()

    def hold(self) -> None:
        """Answer nothing until `release`."""
        self._loop.soon(self.answers.clear)

    def release(self) -> None:
        self._loop.soon(self.answers.set)

    def start(self) -> None:
        self._loop.run(self._start())
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> None:
        self._loop.run(self._runner.cleanup())

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._authenticate], client_max_size=1 << 30)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/workers", self._workers)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    @web.middleware
    async def _authenticate(self, request, handler):
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": {"message": "wrong API key"}}, status=401)
        return await handler(request)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in self.models]})

    async def _workers(self, request: web.Request) -> web.Response:
        if self.workers is None:
            raise web.HTTPNotFound
        return web.json_response({"workers": self.workers, "may_be_added": self.may_be_added})

    async def _metrics(self, request: web.Request) -> web.Response:
        if self.metrics is None:
            raise web.HTTPNotFound
        return web.Response(text=self.metrics)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append((request.path, body))
        self.priorities.add(request.headers.get("X-Priority"))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.answers.wait()
            await asyncio.sleep(self.delay_s)
            return await self._fault_or_answer(request, body)
        finally:
            self.under_way -= 1

    async def _fault_or_answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        prompt = body["prompt"] if "prompt" in body else body.get("messages", [{"content": ""}])[-1]["content"]
        name = prompt[:100]
        faults = self.faults.get(name)
        fault = faults.pop(0) if faults else None
        if isinstance(fault, web.Response):
            return fault
        if isinstance(fault, int):
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return web.json_response({"error": {"message": f"stub says {fault}"}}, status=fault, headers=headers)
        if fault == "mush":
            return web.Response(text="<html>not what you asked for</html>")
        assert request.transport is not None
        if fault == "drop":
            request.transport.abort()
        if fault == "cut":
            response = web.StreamResponse(headers={"Content-Length": "500"})
            await response.prepare(request)
            await response.write(b'{"id": "x", "choices": ')
            request.transport.abort()
            return response
        self.answered[name] += 1
        answer = _completion(request.path, name, body.get("n", 1))
        return web.json_response(answer, headers={"X-Request-Id": f"req-{name}"})


def _completion(path: str, prompt: str, samples: int) -> dict[str, Any]:
    choices = []
    for index in range(samples):
        text = f"echo {prompt}" if samples == 1 else f"echo {prompt} {index}"
        said = {"message": {"role": "assistant", "content": text}} if "chat" in path else {"text": text}
        choices.append({"index": index, "finish_reason": "stop", **said})
    usage = {"prompt_tokens": 1, "completion_tokens": 5 * samples, "total_tokens": 1 + 5 * samples}
    return {"id": "cmpl-1", "object": "x", "model": "stub", "choices": choices, "usage": usage}


class Batch:
    """Input, output and how to run them."""

    def __init__(self, endpoint: Endpoint, folder: Path) -> None:
        self.endpoint, self.folder = endpoint, folder
        self.input, self.output = folder / "in.jsonl", folder / "out.jsonl"
        self.ledger = folder / "out.jsonl.ledger"

    def lines(self, *lines: object) -> None:
        """What is not bytes already is written as JSON."""
        raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        self.input.write_bytes(b"".join(line + b"\n" for line in raw))

    def prompts(self, count: int) -> None:
        self.lines(*({"id": f"p{index}", "prompt": f"p{index}"} for index in range(count)))

    def options(self, **changed: Any) -> BatchOptions:
        basic = {
            "inputs": [str(self.input)],
            "output": OutputOptions(path=self.output),
            "endpoint": Address(self.endpoint.url),
            "key": KEY,
        }
        return BatchOptions(**{**basic, **changed})

    def run(self, **changed: Any) -> BatchSummary:
        return run_batch(self.options(**changed), lambda state: None)

    def results(self) -> list[dict[str, Any]]:
        """The rows of the output."""
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def answers(self) -> list[Any]:
        return [row["generated_text"] for row in self.results() if row["error"] is None]

    def ids(self) -> list[Any]:
        """Of rows that have an answer, in the order of the output."""
        return [row["id"] for row in self.results() if row["error"] is None]

    def errors(self) -> dict[Any, str]:
        """Why rows have no answer, by their ids."""
        return {row["id"]: row["error"] for row in self.results() if row["error"] is not None}


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def endpoint(loop: Loop) -> Iterator[Endpoint]:
    endpoint = Endpoint(loop)
    yield endpoint
    endpoint.stop()


@pytest.fixture
def batch(endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """A batch that does not wait long between attempts."""
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
    return Batch(endpoint, tmp_path)


@pytest.fixture
def new_batch(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Batch]]:
    """Makes batches in folders of their own, for tests that need many."""
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
    made: list[Batch] = []

    def make() -> Batch:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Batch(Endpoint(loop), folder))
        return made[-1]

    yield make
    for batch in made:
        batch.endpoint.stop()
