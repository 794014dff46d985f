"""What clients hear when the engine fails: one request, or all of them; before the head of a stream, or after."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from slurminfer.core.errors import EngineError
from slurminfer.core.net.connection_guard import ConnectionLimits
from slurminfer.core.net.http_limits import ConnectionGuard
from slurminfer.nodes.native.api.requests.defaults import SamplingDefaults
from slurminfer.nodes.native.api.server import Server
from slurminfer.nodes.native.api.service import ServedModel
from slurminfer.nodes.native.api.template.chat_template import ChatTemplate
from slurminfer.nodes.native.engine.failures import RequestFailedError
from slurminfer.nodes.native.engine.outputs import Outputs
from slurminfer.nodes.native.engine.request import Limits, Output, Request, Sample
from slurminfer.nodes.native.engine.stats import EngineStats
from slurminfer.nodes.native.tokenizer import Tokenizer
from slurminfer.quant.checkpoint.embedding import EmbeddingConfig

from ....support.loop import Loop

BODY = {"model": "tiny", "prompt": "fox", "max_tokens": 5}
FAILURES = [
    (RequestFailedError("the engine failed on this request: ValueError"), "request_failed"),
    (EngineError("the engine has failed"), "engine_failed"),
]


class ScriptedEngine:
    """Answers every request with `words` tokens, and then with `error`."""

    def __init__(self) -> None:
        self.limits: Limits | None = Limits(context_length=100, cache_tokens=100, vocab_size=320)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stats = EngineStats()
        self.words, self.error = 0, EngineError("")

    def submit(self, requests: Sequence[Request], *, at_once: bool = True) -> Outputs:
        outputs = Outputs(requests, lambda ids, paused: None)
        for _ in range(self.words):
            outputs.put(Output(requests[0], Sample(70), None))
        outputs.fail(self.error)
        return outputs

    def abort(self, ids: object) -> None:
        pass


class Surface:
    """The HTTP server before a scripted engine."""

    def __init__(self, loop: Loop, directory: Path) -> None:
        self._loop = loop
        loop.run(self._start(directory))

    async def _start(self, directory: Path) -> None:
        self.engine = ScriptedEngine()
        tokenizer = Tokenizer(directory)
        model = ServedModel(
            "tiny", tokenizer, ChatTemplate(directory, {}), SamplingDefaults(), EmbeddingConfig(size=64)
        )
        guard = ConnectionGuard(ConnectionLimits(connections=10, strangers_per_source=10))
        self.server = Server(model, self.engine, guard)  # type: ignore[arg-type]
        self._runner = web.AppRunner(self.server.app(), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def ask(self, **fields: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/completions", json={**BODY, **fields}, timeout=30)

    def stop(self) -> None:
        async def stop() -> None:
            await self._runner.cleanup()
            await self.server.service.close()

        self._loop.run(stop())


@pytest.fixture
def surface(model_directory: Path) -> Iterator[Surface]:
    loop = Loop()
    running = Surface(loop, model_directory)
    yield running
    running.stop()
    loop.close()


@pytest.mark.parametrize(("error", "code"), FAILURES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_token_is_a_500(surface, caplog, error, code, stream):
    surface.engine.error = error
    answer = surface.ask(stream=stream)
    assert answer.status_code == 500
    assert answer.json()["error"] == {"message": str(error), "type": "server_error", "param": None, "code": code}
    assert surface.server.service.in_flight == 0
    assert caplog.records == []


@pytest.mark.parametrize(("error", "code"), FAILURES)
def test_a_failure_in_a_stream_is_its_last_event(surface, error, code):
    surface.engine.words, surface.engine.error = 2, error
    answer = surface.ask(stream=True)
    *words, last = [json.loads(event.removeprefix("data: ")) for event in answer.text.split("\n\n") if event]
    assert answer.status_code == 200
    assert len(words) == 2
    assert (last["error"]["message"], last["error"]["code"]) == (str(error), code)


def test_an_engine_that_is_told_to_end_says_503_and_try_again(surface):
    surface.engine.error = EngineError("the engine is shutting down")
    surface.server.service.draining = True
    answer = surface.ask()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_while_the_model_is_loading_it_says_503(surface):
    surface.engine.limits = None
    for call in (surface.ask, lambda: httpx.get(f"{surface.url}/health")):
        answer = call()
        assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the model is loading")


@pytest.mark.parametrize("wrong", [b"", b"[" * 10**5, b"\xff", b'{"model": "tiny"}', b'{"model": 5, "prompt": "x"}'])
def test_a_clients_mistake_leaves_nothing_in_the_log(surface, caplog, capfd, wrong):
    assert httpx.post(f"{surface.url}/v1/completions", content=wrong).status_code == 400
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
