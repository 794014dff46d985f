"""Server-sent events: when the head is sent, and comments while there is nothing to say."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest
from aiohttp import web

from slurminfer.nodes.native.api.answers.stream import EventStream
from slurminfer.nodes.native.api.errors import ApiError
from slurminfer.nodes.native.api.middleware import add_request_id, answer_errors

from ....support.loop import Loop

SILENCE_S = 15.0


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[float] = asyncio.Queue()
        self._go = asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        self.asked.put_nowait(seconds)
        await self._go.acquire()

    async def passes(self) -> None:
        """Let the sleep that has begun, or the next one to begin, end."""
        assert await self.asked.get() == SILENCE_S
        self._go.release()


Answer = Callable[[EventStream, Clock], Awaitable[None]]


@pytest.fixture
def loop() -> Iterator[Loop]:
    running = Loop()
    yield running
    running.close()


def _ask(loop: Loop, answer: Answer, *, silence_s: float = SILENCE_S) -> httpx.Response:
    """What a client gets from a server that answers with `answer`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        clock = Clock()
        async with EventStream(request, silence_s, clock.sleep) as stream:
            await answer(stream, clock)
        return stream.response

    async def start() -> tuple[web.AppRunner, int]:
        app = web.Application(middlewares=[answer_errors])
        app.on_response_prepare.append(add_request_id)
        app.router.add_get("/", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    runner, port = loop.run(start())
    try:
        return httpx.get(f"http://127.0.0.1:{port}/", headers={"X-Request-Id": "abc-1"})
    finally:
        loop.run(runner.cleanup())


def _lines(response: httpx.Response) -> list[str]:
    return [line for line in response.text.split("\n\n") if line]


def test_events_are_utf8_json_and_end_with_done(loop):
    async def answer(stream: EventStream, _: Clock) -> None:
        await stream.send({"text": "é"})
        await stream.finish()

    response = _ask(loop, answer)
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["X-Request-Id"] == "abc-1"
    assert _lines(response) == ['data: {"text":"é"}', "data: [DONE]"]


def test_a_comment_comes_after_each_silence_and_none_where_there_were_events(loop):
    async def answer(stream: EventStream, clock: Clock) -> None:
        await clock.passes()
        await clock.passes()
        assert await clock.asked.get() == SILENCE_S  # the third sleep has begun
        await stream.send({"a": 1})
        clock._go.release()
        assert await clock.asked.get() == SILENCE_S  # the fourth: no comment after the third
        await stream.send({"a": 2})

    first, second, *events = _lines(_ask(loop, answer))
    assert first == second
    assert first.startswith(": ")
    assert events == ['data: {"a":1}', 'data: {"a":2}']


def test_what_fails_before_the_first_comment_keeps_its_status(loop):
    async def answer(stream: EventStream, _: Clock) -> None:
        assert not stream.begun
        raise ApiError(503, "the engine has gone")

    response = _ask(loop, answer)
    assert (response.status_code, response.json()["error"]["message"]) == (503, "the engine has gone")


def test_after_a_comment_the_head_is_sent(loop):
    async def answer(stream: EventStream, clock: Clock) -> None:
        await clock.passes()
        await clock.asked.get()
        assert stream.begun
        await stream.send({"error": {}})

    response = _ask(loop, answer)
    assert response.status_code == 200
    assert _lines(response)[-1] == 'data: {"error":{}}'


def test_there_are_no_comments_where_none_are_wanted(loop):
    async def answer(stream: EventStream, clock: Clock) -> None:
        await asyncio.sleep(0)
        assert clock.asked.empty()
        await stream.finish()

    assert _lines(_ask(loop, answer, silence_s=0)) == ["data: [DONE]"]


def test_a_defect_is_an_answer_as_well_and_its_traceback_is_printed_once(loop, capsys):
    async def answer(stream: EventStream, _: Clock) -> None:
        raise ZeroDivisionError("one of ours")

    for _ in range(2):
        response = _ask(loop, answer)
        assert (response.status_code, response.json()["error"]["code"]) == (500, "request_failed")
        assert response.json()["error"]["message"] == "the engine failed on this request: ZeroDivisionError"
    assert capsys.readouterr().err.count("GET / has failed, the engine goes on:") == 1


def test_a_defect_after_the_head_ends_the_stream_and_is_no_second_answer(loop):
    async def answer(stream: EventStream, _: Clock) -> None:
        await stream.send({"a": 1})
        raise ZeroDivisionError

    with pytest.raises(httpx.RemoteProtocolError):
        _ask(loop, answer)
