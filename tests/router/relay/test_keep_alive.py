"""Streams without an event: comments while their requests wait, and what follows them."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from .relayed import DONE, HEAD, LAST, TEXT, answer, chunk, event, events_of, hang, is_done, text_of

COMMENT = b": no event yet\n\n"
REFUSAL = {"error": {"message": "temperature = 9: expected at most 2", "type": "invalid_request_error", "param": None,
                     "code": "too_hot"}}  # fmt: skip


@pytest.fixture
def relay(relayed):
    """A relay whose streams get a comment with each tick of its clock."""
    return relayed(comment_after=1)


def tick(relay):
    """Let the time pass after which a stream gets a comment."""
    for _ in range(2):
        relay.run(relay.server._keep_alive.tick)


class Reading:
    """A stream that is read beside the test."""

    def __init__(self, relay, path="/v1/chat/completions", **fields):
        self.heard = b""
        self._pool = ThreadPoolExecutor(1)
        self._relay, self._path, self._fields = relay, path, fields
        self.answer: Future[httpx.Response] = self._pool.submit(self._read)

    def _read(self):
        asked = {"input": "Hi"} if "responses" in self._path else {"messages": [{"role": "user", "content": "Hi"}]}
        body = {"model": "m", "stream": True, **asked, **self._fields}
        with self._relay.http.stream("POST", self._path, json=body) as answer:
            for data in answer.iter_raw():
                self.heard += data
        return answer

    def end(self):
        """All that was said, without comments."""
        answer = self.answer.result(30)
        self._pool.shutdown()
        assert answer.status_code == 200 and answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["X-Accel-Buffering"] == "no"
        return httpx.Response(200, content=self.heard.replace(COMMENT, b""), headers=dict(answer.headers))


def commented(relay, eventually, reading, times=2, comment=COMMENT):
    """Wait until a stream has got so many comments."""
    eventually(lambda: tick(relay) or reading.heard.count(comment) >= times)


def test_a_stream_that_waits_for_a_worker_gets_comments_then_its_answer(relay, eventually):
    relay.promise(may_come=True)
    reading = Reading(relay)
    commented(relay, eventually, reading)
    assert not reading.answer.done()
    relay.add("w-0")
    said = reading.end()
    assert text_of(said) == TEXT and is_done(said)
    eventually(lambda: relay.server._keep_alive._waiting.all() == [])


def test_a_stream_whose_worker_is_silent_gets_comments_of_ours(one, eventually):
    go = threading.Event()

    async def late(asked):
        await asyncio.to_thread(go.wait)
        await answer(asked)

    one.stubs[0].behaviour = late
    reading = Reading(one)
    commented(one, eventually, reading)
    go.set()
    assert text_of(reading.end()) == TEXT


def test_after_a_comment_a_refusal_is_an_error_event_with_the_workers_words(relay, eventually):
    async def refuse(asked):
        await asked.whole(REFUSAL, status=400)

    relay.promise(may_come=True)
    reading = Reading(relay)
    commented(relay, eventually, reading, 1)
    relay.add("w-0", refuse)
    said = reading.end()
    [error] = [event["error"] for event in events_of(said) if "error" in event]
    assert (error["message"], error["code"]) == (REFUSAL["error"]["message"], "too_hot")


def test_after_a_comment_the_loss_of_a_worker_is_no_fault_of_the_stream(two, eventually):
    for stub in two.stubs:
        stub.behaviour = hang
    reading = Reading(two)
    commented(two, eventually, reading, 1)
    [first] = eventually(lambda: [stub for stub in two.stubs if stub.asked])
    other = next(stub for stub in two.stubs if stub is not first)
    other.behaviour = answer
    two.kill(first)
    assert text_of(reading.end()) == TEXT


def test_after_a_comment_a_request_that_nobody_takes_ends_with_an_error_event(relay, eventually):
    relay.promise(may_come=True)
    reading = Reading(relay)
    commented(relay, eventually, reading, 1)
    relay.promise(may_come=False, reason="its jobs have failed")

    server = relay.server
    relay.run(lambda: server._admission.refuse_where(lambda lane: not server._forwarder.has_hope(lane)))
    assert "no worker is ready" in events_of(reading.end())[-1]["error"]["message"]


def test_streams_that_have_begun_and_whole_answers_get_none(one, eventually):
    go = threading.Event()

    async def slow(asked):
        if asked.body.get("stream"):
            await asked.send(HEAD + chunk(event("Once")))
        await asyncio.to_thread(go.wait)
        if not asked.body.get("stream"):
            await answer(asked)
        else:
            await asked.send(chunk(event(None, "stop") + DONE) + LAST)

    one.stubs[0].behaviour = slow
    stream, whole = Reading(one), Reading(one, stream=False)
    eventually(lambda: b"Once" in stream.heard and len(one.stubs[0].asked) == 2)
    tick(one)
    go.set()
    assert text_of(stream.end()) == "Once" and COMMENT not in stream.heard
    assert whole.answer.result(30).headers["Content-Type"] == "application/json" and COMMENT not in whole.heard


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"Bad Gateway", ": Bad Gateway"), (b"", ""), (b'{"error": 5}', ': {"error": 5}'),
     (b"[" * 100_000, f": {'[' * 500}")],
)  # fmt: skip
def test_after_a_comment_errors_of_any_form_are_error_events(relay, eventually, body, said):
    async def refuse(asked):
        await asked.whole(body, status=400)

    relay.promise(may_come=True)
    reading = Reading(relay)
    commented(relay, eventually, reading, 1)
    relay.add("w-0", refuse)
    assert events_of(reading.end())[-1]["error"]["message"] == f"the worker answered 400{said}"


@pytest.mark.parametrize(
    ("path", "fields", "comment"),
    [("/v1/messages", {"max_tokens": 9}, b"event: ping\n"), ("/v1/responses", {}, COMMENT)],
)
def test_translated_streams_are_kept_alive_in_their_own_way(relay, eventually, path, fields, comment):
    relay.promise(may_come=True)
    reading = Reading(relay, path, **fields)
    commented(relay, eventually, reading, comment=comment)
    relay.add("w-0")
    assert TEXT.split()[0] in reading.end().text
