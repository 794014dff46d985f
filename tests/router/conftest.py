"""Stub workers (real HTTP servers that compute nothing, steered by the test) and real routers before them."""

import asyncio
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web

from slurminfer.core.records import WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.deployment import DeploymentSpec
from slurminfer.core.spec.model import ModelSpec
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.core.spec.router import RouterSpec

from ..support import waiting
from ..support.loop import Loop

WORDS = ["Hello", " from", " the", " stub"]


class Stub:
    """A stub worker.

    `mode`: answer | drop (before any byte) | cut (in mid-body) | hang (after one word) | stop (no answer, no health) |
    die (says 500, and that it is not healthy from then on) | die later (it seems healthy for a while).
    """

    def __init__(self, loop: Loop, run: RunDirectory, worker_id: str, capacity: int | None) -> None:
        self._loop, self._run = loop, run
        self.id, self.capacity = worker_id, capacity
        self.mode, self.status, self.health = "answer", 200, 200
        self.error: dict[str, Any] = {"error": {"message": "no"}}  # what it says where `status` is not 200
        self.card: dict[str, Any] = {"id": "stub-model", "object": "model", "created": 7, "owned_by": "stub"}
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.health_asked = 0  # how often
        self.probes = 0  # requests of the router's own for one token
        self.metrics = ""
        self.usage: dict[str, Any] = {}  # of answers in one piece
        self.generating = False  # its engine counts one more token whenever it is asked for its metrics
        self._generated = 0
        self.delay_s = 0.0  # of an answer in one piece
        self.go = threading.Semaphore(0)  # one word each where `stepwise`
        self.stepwise = False
        self.aborted = threading.Event()
        self.record: WorkerRecord
        loop.run(self._start())
        self.publish()

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**27)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        self.socket = private_folder(self._run) / f"{self.id}.sock"
        await web.UnixSite(self._runner, str(self.socket)).start()

    def publish(self, state: WorkerState = WorkerState.READY, epoch: int = 0, model: str = "stub-model") -> None:
        self.record = WorkerRecord(
            id=self.id, pool="stubs", engine="native", model=model, state=state, host=socket.gethostname(), job="1",
            epoch=epoch, pid=1, updated_at=time.time(), socket=str(self.socket), key=f"key-of-{self.id}",
            capacity=self.capacity,
        )  # fmt: skip
        self._run.write_worker(self.record)

    def stop(self) -> None:
        self._loop.run(self._runner.cleanup())

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self.card]})

    async def _metrics(self, request: web.Request) -> web.Response:
        self._generated += self.generating
        return web.Response(text=f"{self.metrics}\nslurminfer_engine_generation_tokens_total {self._generated}\n")

    async def _token(self, request: web.Request) -> web.Response:
        self.probes += 1
        if self.mode != "answer":
            return web.json_response({"error": {"message": "no"}}, status=500)
        return web.json_response({"choices": [{"index": 0, "text": "1"}]}, status=self.status)

    async def _health(self, request: web.Request) -> web.Response:
        self.health_asked += 1
        if self.mode == "stop":
            await asyncio.sleep(60)
        return web.Response(status=self.health)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if b'"max_tokens": 1,' in body and b'"prompt": "1"' in body:
            return await self._token(request)
        self.requests.append((request.path_qs, {k.lower(): v for k, v in request.headers.items()}, body))
        assert request.transport is not None
        if self.mode == "drop":
            request.transport.abort()
        if self.mode == "stop":
            await self._until_cancelled()
        if self.mode.startswith("die"):
            self.health = 503 if self.mode == "die" else 200
            return web.json_response({"error": {"message": "the engine has died"}}, status=500)
        if self.status != 200:
            return web.json_response(self.error, status=self.status)
        if b'"stream": true' in body or b'"stream":true' in body:
            return await self._events(request)
        return await self._json(request)

    async def _json(self, request: web.Request) -> web.StreamResponse:
        message = {"role": "assistant", "content": "".join(WORDS)}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": message}
        whole = {"id": "x", "object": "chat.completion", "created": 0, "model": "stub-model", "choices": [choice]}
        if request.path.endswith("/embeddings"):
            whole = {"object": "list", "model": "stub-model", "data": [{"index": 0, "embedding": [0.5]}]}
        elif not request.path.endswith("/chat/completions"):
            choice["text"] = "".join(WORDS)
        whole |= {"usage": self.usage} if self.usage else {}
        if self.mode == "hang":
            await self._until_cancelled()
        await asyncio.sleep(self.delay_s)
        if self.mode != "cut":
            return web.json_response(whole, headers={"X-Stub": self.id})
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"id": ')
        return await self._cut(request, response)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Stub": self.id})
        await response.prepare(request)
        for index, word in enumerate(WORDS):
            while self.stepwise and not self.go.acquire(blocking=False):
                await asyncio.sleep(0.005)
            delta = f'{{"index":0,"delta":{{"role":"assistant","content":"{word}"}},"finish_reason":null}}'
            event = (
                f'data: {{"id":"x","object":"chat.completion.chunk","created":0,"model":"m","choices":[{delta}]}}\n\n'
            )
            if self.mode == "cut" and index == 2:
                await response.write(event[:30].encode())
                return await self._cut(request, response)
            await response.write(event.encode())
            if self.mode == "hang":
                await self._until_cancelled()
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _until_cancelled(self) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.aborted.set()
            raise

    async def _cut(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        await asyncio.sleep(0.05)  # so that what was written is read before the connection breaks
        assert request.transport is not None
        request.transport.abort()
        return response


def private_folder(run: RunDirectory) -> Path:
    """A folder for sockets, whose paths must be short."""
    link = run.path / "sockets"
    if not link.is_symlink():
        link.symlink_to(tempfile.mkdtemp(prefix="slurminfer-test-"))
    return link.readlink()


class Deployment:
    """A run directory with stub workers and at most one router, all in this process."""

    def __init__(self, loop: Loop, path: Path) -> None:
        self._loop = loop
        self.run = RunDirectory(path)
        self.run.create()
        self.configure()
        self.stubs: list[Stub] = []
        self._router: Future[Any] | None = None

    def configure(self, **router: Any) -> None:
        """Write a spec whose [router] has these keys."""
        spec = DeploymentSpec(
            name="test", model=ModelSpec(path="stub-model"), pool=(PoolSpec(),), router=RouterSpec(port=0, **router)
        )
        self.run.write_spec(spec)

    def add(self, worker_id: str, capacity: int | None = 4) -> Stub:
        self.stubs.append(Stub(self._loop, self.run, worker_id, capacity))
        return self.stubs[-1]

    def start_router(self, *, verify: bool = True) -> None:
        from slurminfer.router.main import serve

        self._stop = asyncio.Event()
        self._router = self._loop.start(serve(self.run, self._stop, in_process=True))
        waiting.eventually(lambda: self.run.read_router() or (self._router and self._router.done()))
        record = self.run.read_router()
        assert record is not None and record.url is not None
        self.url = record.url
        headers = {"Authorization": f"Bearer {self.run.key()}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=20, verify=verify)
        self.openai = openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.run.key(), max_retries=0, timeout=20)

    def stop_router(self) -> None:
        if self._router is not None:
            self.http.close()
            self.openai.close()
            self._loop.soon(self._stop.set)
            self._router.result(timeout=30)
            self._router = None

    def close(self) -> None:
        self.stop_router()
        for stub in self.stubs:
            stub.stop()
        shutil.rmtree(private_folder(self.run))

    def chat(self, **fields: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json={"model": "stub-model", "messages": [], **fields})

    def workers(self) -> dict[str, dict[str, Any]]:
        return {worker["id"]: worker for worker in self.http.get("/workers").json()["workers"]}


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMINFER_LOCAL", "1")


@pytest.fixture
def empty(loop: Loop, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment without workers or router."""
    deployment = Deployment(loop, tmp_path / "run")
    yield deployment
    deployment.close()


@pytest.fixture
def one(empty: Deployment) -> Deployment:
    """A router before one worker."""
    empty.add("cpu-0")
    empty.start_router()
    return empty


@pytest.fixture
def two(empty: Deployment) -> Deployment:
    """A router before two workers."""
    empty.add("cpu-0")
    empty.add("cpu-1")
    empty.start_router()
    return empty


@pytest.fixture
def eventually() -> Callable[..., None]:
    return waiting.eventually
