"""Streams whose workers die, stop or must end: another worker goes on, and the client sees one answer."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from slurminfer.router.control.messages import Blamed, Suspect
from slurminfer.router.relay import forward
from slurminfer.router.relay.stream.resume import plan
from slurminfer.router.relay.workers import silence, upstream, workers

from .relayed import DONE, HEAD, LAST, TEXT, WORDS, answer, chunk, drop, event, events_of, hang, is_done, text_of


def cut_after(words):
    async def cut(asked):
        await asked.answer(words=words)
        asked.cut()

    return cut


def first_and_other(two):
    first = two.chat().headers["X-Slurminfer-Worker"]
    return sorted(two.stubs, key=lambda stub: stub.id == first)


@pytest.mark.parametrize("words", [1, 3, 6])
def test_another_worker_goes_on_where_the_first_one_was_lost(two, words):
    bad, good = first_and_other(two)
    bad.behaviour = cut_after(words)
    got = two.chat(stream=True, max_tokens=9)
    assert (text_of(got), is_done(got)) == (TEXT, True)
    assert got.headers["X-Slurminfer-Worker"] == bad.id
    seen = good.asked[-1].body
    assert seen["messages"][-1] == {"role": "assistant", "content": "".join(WORDS[:words])}
    assert seen["max_tokens"] == 9 - words
    roles = [event["choices"][0]["delta"].get("role") for event in events_of(got)]
    assert roles.count("assistant") == 1
    assert two.report().counters.failovers[("tried", "stream")] == 1
    assert two.report().counters.failovers[("succeeded", "stream")] == 1


@pytest.mark.parametrize("why", ["it is lost", "it must end"])
def test_many_streams_go_on_elsewhere_one_by_one(relay, monkeypatch, eventually, why):
    """Each is read first, which takes 60 ms for 8,000 tokens: others are to go on between two of them."""
    streams = 6
    now, most = list[int](), 0  # plans in this turn of the loop

    def noting(*args):
        nonlocal most
        now.append(1)
        most = max(most, len(now))
        asyncio.get_running_loop().call_soon(now.clear)
        return plan(*args)

    monkeypatch.setattr(forward, "plan", noting)
    waiting = []

    async def wait(asked):
        await asked.answer(words=2)
        waiting.append(asked)
        await asked.forever()

    first = relay.add("w-0", wait, capacity=64)
    with ThreadPoolExecutor(streams) as pool:
        answers = [pool.submit(relay.chat, stream=True) for _ in range(streams)]
        eventually(lambda: len(waiting) == streams)
        relay.add("w-1", capacity=64)
        if why == "it is lost":
            relay.run(lambda: [asked.cut() for asked in waiting])
        else:
            relay.tell(first.id, state="draining", choosable=False, move_by=time.time() - 1)
        assert [text_of(answer.result()) for answer in answers] == [TEXT] * streams
    assert 1 <= most <= 2, "whether one can go on, and how another one does"


def test_several_deaths_give_one_answer_without_a_repeated_word(relay):
    for number, words in enumerate([2, 1, 2, None]):
        relay.add(f"w-{number}", cut_after(words) if words is not None else answer)
        relay.add(f"other-{number}", cut_after(1))
    got = relay.chat(stream=True, stream_options={"include_usage": True})
    assert (text_of(got), is_done(got)) == (TEXT, True)
    assert [event["usage"]["completion_tokens"] for event in events_of(got) if event.get("usage")] == [len(WORDS)]


def test_hedged_workers_that_are_lost_count_both(relayed):
    relay = relayed(hedge_after=0.01)

    async def die_late(asked):
        await asyncio.sleep(0.1)
        asked.cut()

    for number in range(6):
        relay.add(f"w-{number}", die_late)
    assert relay.chat(stream=True).status_code == 502
    assert sum(len(stub.asked) for stub in relay.stubs) == 4


def test_where_nobody_can_go_on_the_stream_ends_with_an_error(two):
    for stub in two.stubs:
        stub.behaviour = cut_after(2)
    got = two.chat(stream=True, n=2)
    *events, error = events_of(got)
    assert "broke off" in error["error"]["message"] and error["error"]["code"] == "answer_broke_off"
    assert [event["choices"][0]["delta"]["content"] for event in events] == WORDS[:2]
    assert not is_done(got)
    assert sum(len(stub.asked) for stub in two.stubs) == 1
    assert two.report().counters.failovers == {("tried", "stream"): 1, ("failed", "stream"): 1}


def test_a_stream_that_was_cut_ends_with_an_error_although_another_worker_had_refused_it(relayed):
    relay, asked_before = relayed(queue_timeout=0.1), []

    async def refuse_then_break_off(asked):
        asked_before.append(asked)
        if len(asked_before) == 1:
            await asked.whole({"error": {"message": "busy"}}, 503)
        else:
            await asked.answer(words=2)
            asked.cut()

    for number in range(2):
        relay.add(f"w-{number}", refuse_then_break_off)
    answer = relay.chat(stream=True)
    assert text_of(answer) == "one two" and not is_done(answer)
    assert "broke off" in events_of(answer)[-1]["error"]["message"]


def test_without_failover_the_stream_ends_with_an_error(relayed):
    relay = relayed(failover=False)
    relay.add("w-0", cut_after(2))
    relay.add("w-1", cut_after(2))
    got = relay.chat(stream=True)
    assert "broke off" in events_of(got)[-1]["error"]["message"]
    assert not is_done(got)
    assert sum(len(stub.asked) for stub in relay.stubs) == 1


def test_half_an_event_is_not_left_behind(two):
    async def cut(asked):
        await asked.send(HEAD, chunk(event("one")), chunk(event(" two")[:30]))
        asked.cut()

    bad, _ = first_and_other(two)
    bad.behaviour = cut
    assert text_of(two.chat(stream=True)) == TEXT


def test_a_stream_that_ends_before_its_answer_is_continued(two):
    async def end(asked):
        await asked.answer(words=2)
        await asked.send(b"0\r\n\r\n")

    bad, _ = first_and_other(two)
    bad.behaviour = end
    got = two.chat(stream=True)
    assert (text_of(got), is_done(got)) == (TEXT, True)


def test_a_worker_that_refuses_to_go_on_is_passed_over(relay):
    async def refuse(asked):
        if asked.body.get("continue_final_message"):
            await asked.whole({"error": {"message": "unknown field"}}, status=400)
        else:
            await cut_after(2)(asked)

    relay.add("w-0", refuse)
    relay.add("w-1", refuse)
    got = relay.chat(stream=True)
    assert "broke off" in events_of(got)[-1]["error"]["message"]


def of_choices(*said):
    """Events of choices: index, text, token ids, finish reason."""
    names = {"id": "x", "object": "text_completion", "created": 1, "model": "m"}
    choices = [{"index": i, "text": text, "finish_reason": end, "token_ids": ids} for i, text, ids, end in said]
    return [chunk(b"data: %b\n\n" % json.dumps({**names, "choices": [choice]}).encode()) for choice in choices]


async def cut_two_choices(asked):
    await asked.send(HEAD, *of_choices((0, "a", [1], None), (1, "b", [2], "stop")))
    asked.cut()


async def know_one_choice_only(asked):
    if any(isinstance(each, list) for each in asked.body.get("continue_token_ids", ())):
        await asked.whole({"error": {"message": "continue_token_ids[0] = [1]: expected an integer"}}, status=400)
    else:
        await cut_two_choices(asked)


def ask_for_two_choices(relay):
    body = {"model": "m", "prompt": "p", "n": 2, "stream": True}
    return events_of(relay.http.post("/v1/completions", json=body))


def test_several_choices_go_on_at_the_engine_that_knows_their_tokens(relay):
    async def go_on(asked):
        if "continue_token_ids" not in asked.body:
            await cut_two_choices(asked)
            return
        assert (asked.body["continue_token_ids"], asked.body["finished_choices"]) == ([[1], [2]], [1])
        await asked.send(HEAD, *of_choices((0, "c", [3], "stop")), chunk(DONE), LAST)

    for number in range(2):
        relay.add(f"w-{number}", go_on, engine="native")
    told = [event["choices"][0] for event in ask_for_two_choices(relay)]
    assert [(choice["index"], choice["text"]) for choice in told] == [(0, "a"), (1, "b"), (0, "c")]


def test_several_choices_end_with_an_error_where_engines_know_one_only(relay):
    """As of an older version, whose error names the field. A stream of one choice goes on there."""
    stubs = [relay.add(f"w-{number}", know_one_choice_only, engine="native") for number in range(3)]
    *told, error = ask_for_two_choices(relay)
    assert [event["choices"][0]["text"] for event in told] == ["a", "b"]
    assert error["error"]["code"] == "answer_broke_off"
    assert "answered 400 to what was to go on" in error["error"]["message"]
    assert [len(stub.asked) for stub in stubs] == [1, 1, 1]
    assert [suspect.slot for suspect in relay.suspects if isinstance(suspect, Suspect)] == [0], "others are not lost"


def test_a_whole_answer_that_breaks_off_is_made_anew(two):
    async def cut(asked):
        await asked.send(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"id"')
        asked.cut()

    bad, good = first_and_other(two)
    bad.behaviour = cut
    got = two.chat()
    assert (got.status_code, text_of(got), got.headers["X-Slurminfer-Worker"]) == (200, TEXT, good.id)


@pytest.mark.parametrize("words", [0, 2])
@pytest.mark.parametrize("why", ["stopped", "moved"])
def test_requests_leave_a_worker_that_has_stopped_or_must_end(two, words, why, monkeypatch, eventually):
    async def stop(asked):
        if words:
            await asked.answer(words=words)
        await asked.forever()

    monkeypatch.setattr(upstream, "STOPPED_S", 0.05)
    stopped, _ = first_and_other(two)
    stopped.behaviour = stop
    waiting = asyncio.run_coroutine_threadsafe(
        asyncio.to_thread(two.chat, stream=True),
        two._loop._loop,
    )
    eventually(lambda: stopped.asked and stopped.asked[-1].body.get("stream"))
    if why == "stopped":
        two.tell(stopped.id, choosable=False, trouble="silent")
    else:
        two.tell(stopped.id, state="draining", choosable=False, move_by=time.time() - 1)
    got = waiting.result(30)
    assert (text_of(got), is_done(got)) == (TEXT, True)
    eventually(lambda: stopped.aborted)
    assert not two.suspects, "the supervisor knows already"
    assert two.report().counters.upstream_errors[(stopped.id, why)] == 1


def test_a_stream_that_nobody_can_go_on_with_ends_at_a_worker_that_stays_stopped(relay, monkeypatch, eventually):
    async def stop(asked):
        await asked.answer(words=2)
        await asked.forever()

    stub = relay.add("w-0", stop)
    waiting = asyncio.run_coroutine_threadsafe(asyncio.to_thread(relay.chat, stream=True, n=2), relay._loop._loop)
    eventually(lambda: stub.asked)
    relay.add("w-1")
    monkeypatch.setattr(upstream, "STOPPED_S", 0.02)
    monkeypatch.setattr(upstream, "HOPELESS_S", 0.05)
    relay.tell("w-0", choosable=False, trouble="silent")
    *events, error = events_of(waiting.result(30))
    assert [event["choices"][0]["delta"]["content"] for event in events] == WORDS[:2]
    assert error["error"]["code"] == "answer_broke_off"
    eventually(lambda: stub.aborted)


@pytest.mark.parametrize("words", [0, 2])
def test_a_worker_that_says_nothing_is_told_of_and_left_when_it_makes_no_token(two, words, monkeypatch, eventually):
    async def hang(asked):
        if words:
            await asked.answer(words=words)
        await asked.forever()

    monkeypatch.setattr(silence, "LEAST_S", 0.01)
    stopped, _ = first_and_other(two)
    stopped.behaviour = hang
    waiting = asyncio.run_coroutine_threadsafe(asyncio.to_thread(two.chat, stream=True), two._loop._loop)
    eventually(lambda: [suspect.kind for suspect in two.suspects][:1] == ["silent"])
    if words:
        monkeypatch.setattr(upstream, "STOPPED_S", 0.05)
    two.tell(stopped.id, choosable=False, has_stopped=True, trouble="it generates no token within 5 s")
    got = waiting.result(30)
    assert (text_of(got), is_done(got)) == (TEXT, True)
    assert two.report().counters.upstream_errors == {(stopped.id, "stopped"): 1}, "no lost worker"


def test_a_worker_that_is_lost_after_its_500_is_held_against_the_request(relay, eventually):
    async def fail(asked):
        await asked.whole({"error": {"message": "no memory"}}, status=500)

    relay.add("w-0", fail)
    assert relay.chat().status_code == 500
    relay.tell("w-0", choosable=False, trouble="no answer")
    relay.add("w-1")
    assert text_of(relay.chat()) == TEXT
    found = eventually(lambda: len(blamed := [one for one in relay.suspects if isinstance(one, Blamed)]) > 1 and blamed)
    assert [(one.points > 0, one.slots) for one in found] == [(True, [0]), (False, [0])], "until it was answered"


def test_a_stopped_worker_keeps_a_request_that_nobody_else_can_take(one, monkeypatch, eventually):
    go = threading.Event()

    async def slow(asked):
        while not go.is_set():
            await asyncio.sleep(0.01)
        await asked.answer()

    monkeypatch.setattr(upstream, "STOPPED_S", 0.05)
    one.stubs[0].behaviour = slow
    waiting = asyncio.run_coroutine_threadsafe(asyncio.to_thread(one.chat), one._loop._loop)
    eventually(lambda: one.stubs[0].asked)
    one.tell("w-0", choosable=False, trouble="silent")
    for _ in range(3):
        one.run(one.server._workers.tick)
    go.set()
    assert text_of(waiting.result(30)) == TEXT
    one.tell("w-0", choosable=True)


def test_a_request_waits_for_a_worker_that_was_there_a_moment_ago(one, eventually):
    one.tell("w-0", choosable=False, trouble="silent")
    waiting = asyncio.run_coroutine_threadsafe(asyncio.to_thread(one.chat), one._loop._loop)
    eventually(lambda: one.report().queued["default"])
    one.tell("w-0", choosable=True)
    assert text_of(waiting.result(30)) == TEXT


def test_nobody_waits_for_workers_that_were_never_ready(relay):
    relay.add("w-0", state="starting", choosable=False)
    got = relay.chat()
    assert (got.status_code, got.headers["Retry-After"]) == (503, "5")
    assert "1 starting" in got.json()["error"]["message"]


def test_a_request_waits_for_a_worker_that_has_just_become_ready(relay, eventually):
    relay.add("w-0", state="ready", choosable=False, trouble="not probed yet")
    waiting = asyncio.run_coroutine_threadsafe(asyncio.to_thread(relay.chat), relay._loop._loop)
    eventually(lambda: relay.report().queued["default"])
    relay.tell("w-0", choosable=True, trouble="")
    assert text_of(waiting.result(30)) == TEXT


def test_nobody_waits_for_a_worker_whose_job_has_ended_for_a_reason(one):
    one.tell("w-0", state="gone", choosable=False, trouble="cancelled by its user")
    assert one.chat().status_code == 503
    one.tell("w-0", state="ready", choosable=True, trouble="")


def test_waiting_ends_when_there_was_no_worker_for_long(one, eventually, monkeypatch):
    one.tell("w-0", choosable=False, trouble="silent")
    waiting = asyncio.run_coroutine_threadsafe(asyncio.to_thread(one.chat), one._loop._loop)
    eventually(lambda: one.report().queued["default"])
    monkeypatch.setattr(workers, "HOPE_S", 0.0)
    got = waiting.result(30)
    assert (got.status_code, got.headers["Retry-After"]) == (503, "5")
    assert "1 unreachable" in got.json()["error"]["message"]


def test_a_request_whose_only_worker_is_lost_waits_for_its_next_life(one, eventually):
    one.stubs[0].behaviour = drop
    waiting = asyncio.run_coroutine_threadsafe(asyncio.to_thread(one.chat), one._loop._loop)
    one.stubs[0].health = 503
    eventually(lambda: one.suspects)
    one.tell("w-0", choosable=False, trouble="silent")
    one.tell("w-0")
    one.add("w-0", epoch=1)
    assert text_of(waiting.result(30)) == TEXT


def test_hedging_asks_a_second_worker_and_the_first_token_wins(relayed, eventually):
    async def hang(asked):
        await asked.forever()

    relay = relayed(hedge_after=0.05)
    relay.add("w-0", hang)
    relay.add("w-1", hang)
    first = asyncio.run_coroutine_threadsafe(asyncio.to_thread(relay.chat, stream=True), relay._loop._loop)
    eventually(lambda: all(stub.asked for stub in relay.stubs))
    relay.add("w-2")
    for stub in relay.stubs[:1]:
        relay.kill(stub)
    relay.kill(relay.stubs[1])
    assert text_of(first.result(30)) == TEXT
    assert relay.report().counters.hedges["sent"] >= 1


def test_the_slower_of_two_hedged_attempts_ends(relayed, eventually):
    async def hang(asked):
        await asked.forever()

    relay = relayed(hedge_after=0.05, policy="least_load")
    slow = relay.add("w-0", hang)
    relay.add("w-1")
    answers = [relay.chat(stream=True) for _ in range(2)]
    assert [text_of(one) for one in answers] == [TEXT, TEXT]
    eventually(lambda: slow.aborted == len(slow.asked) > 0)
    assert relay.report().counters.hedges == {"sent": len(slow.asked), "won": len(slow.asked)}
    assert not relay.suspects


def test_a_batch_request_gives_way_and_is_answered_later(relayed, eventually):
    relay = relayed(overcommit=1)
    stub = relay.add("w-0", capacity=1)

    async def patient(asked):
        await (asked.answer() if asked.headers.get("x-priority") != "batch" or len(stub.asked) > 2 else asked.forever())

    stub.behaviour = patient
    batch = relay.client("key", **{"X-Priority": "batch"})
    waiting = asyncio.run_coroutine_threadsafe(asyncio.to_thread(relay.chat, batch), relay._loop._loop)
    eventually(lambda: stub.asked)
    assert text_of(relay.chat()) == TEXT
    assert text_of(waiting.result(30)) == TEXT
    assert relay.report().counters.preempted == 1
    assert [asked.headers.get("x-priority") for asked in stub.asked] == ["batch", None, "batch"]
    assert stub.aborted == 1


def begin(one, **fields):
    """A request under way, and what gives its answer."""
    return asyncio.run_coroutine_threadsafe(asyncio.to_thread(one.chat, **fields), one._loop._loop)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_for_a_pool_without_workers_is_held_until_one_comes(relayed, eventually, stream):
    nobody = relayed()
    nobody.promise(may_come=True)
    waiting = begin(nobody, stream=stream)
    eventually(lambda: nobody.report().queued["default"])
    [lane] = nobody.report().lanes
    assert (lane.model, lane.waiting, lane.idle_s) == ("m", 1, 0.0)
    nobody.run(lambda: nobody.server._admission.refuse_where(lambda lane: not nobody.server._forwarder.has_hope(lane)))
    nobody.add("w-0", state="starting", choosable=False)
    assert not waiting.done()
    nobody.tell("w-0", state="ready", choosable=True)
    assert text_of(waiting.result(30)) == TEXT


def test_a_request_whose_worker_is_lost_is_held_for_as_long_as_one_is_promised(one, eventually, monkeypatch):
    monkeypatch.setattr(forward, "HOPE_S", 0.0)
    monkeypatch.setattr(workers, "HOPE_S", 0.0)
    one.promise(may_come=True)
    one.stubs[0].behaviour = hang
    waiting = begin(one)
    eventually(lambda: one.stubs[0].asked)
    one.tell("w-0")
    one.kill(one.stubs[0])
    eventually(lambda: [lane.waiting for lane in one.report().lanes] == [1])
    assert not waiting.done()
    one.add("w-1")
    assert waiting.result(30).status_code == 200


def test_nobody_waits_for_another_worker_where_one_is_there_that_has_failed(one):
    one.promise(may_come=True)
    one.stubs[0].behaviour = drop
    refused = one.chat()
    assert refused.status_code == 503 and "1 ready" in refused.json()["error"]["message"]


def test_after_the_time_for_waiting_a_client_is_told_why_there_is_no_worker(relayed):
    nobody = relayed(queue_timeout=0.2)
    nobody.promise(may_come=True, reason="one is waiting in Slurm's queue, expected to start at 14:20")
    refused = nobody.chat()
    assert refused.status_code == 503 and refused.headers["Retry-After"] == "5"
    message = refused.json()["error"]["message"]
    assert message.startswith(
        "no worker is ready for model 'm': one is waiting in Slurm's queue, expected to start at 14:20 (workers: 0 "
    )


def test_a_pool_that_was_given_up_refuses_at_once_although_it_had_a_worker_a_moment_ago(one, eventually):
    one.tell("w-0", choosable=False, trouble="silent")
    waiting = begin(one)
    eventually(lambda: one.report().queued["default"])
    one.promise(may_come=False, reason="none is started any more: the partition is gone")
    assert "the partition is gone" in waiting.result(30).json()["error"]["message"]
    assert one.chat().status_code == 503
