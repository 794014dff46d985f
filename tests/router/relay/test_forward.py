"""Requests through a relay: what arrives at workers, what comes back, and who is tried."""

import asyncio
import errno
import json
import socket
import threading

import pytest
from msgspec.structs import replace

from slurminfer.core.spec.router import RuleSpec
from slurminfer.router.control.messages import View
from slurminfer.router.http.pool import SocketPool
from slurminfer.router.policies.estimates import Lengths
from slurminfer.router.relay import outcome, server
from slurminfer.router.relay.stream.form import tokens_of

from .relayed import DONE, HEAD, LAST, TEXT, answer, chunk, drop, event, events_of, hang, is_done, text_of, usage_event
from .strange import CHAT as ANSWER

MOST_TAKEN = 4  # workers that one request may take while nothing else happens to them
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def asked(relay):
    return sum(len(stub.asked) for stub in relay.stubs)


def first_and_other(two):
    """The worker that the next request goes to, and the other one: ties go to the one whose turn is longest ago."""
    first = two.chat().headers["X-Slurminfer-Worker"]
    return sorted(two.stubs, key=lambda stub: stub.id == first)


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_passes(one, stream):
    answer = one.chat(stream=stream)
    assert (answer.status_code, text_of(answer)) == (200, TEXT)
    assert answer.headers["X-Slurminfer-Worker"] == "w-0"
    assert is_done(answer) is stream


def test_bytes_query_and_headers_arrive_as_they_were_sent(one):
    body = b'{ "model" :"m", "guided_json": {"b":1,"a":2}, "x": 1e2 , "\xc3\xa9": "\\u00e9" }'
    headers = {"Content-Type": "application/json", "X-Request-Id": "abc", "X-Slurminfer-Admin": "1"}
    answer = one.http.post("/v1/chat/completions?a=%20b", content=body, headers=headers)
    assert answer.headers["X-Request-Id"] == "abc"
    seen = one.stubs[0].asked[-1]
    assert (seen.target, seen.raw) == ("/v1/chat/completions?a=%20b", body)
    assert seen.headers["x-request-id"] == "abc"
    assert seen.headers["authorization"] == "Bearer engine-key", "the engine's own key, not the client's"
    assert "x-slurminfer-admin" not in seen.headers


def test_any_other_post_below_v1_goes_to_a_worker(one):
    assert one.http.post("/v1/rerank", json={"model": "m", "query": "x"}).status_code == 200
    assert one.stubs[0].asked[-1].target == "/v1/rerank"


def test_forms_pass_without_a_model(one):
    assert one.http.post("/v1/audio/transcriptions", files={"file": b"RIFF"}).status_code == 200
    assert b"RIFF" in one.stubs[0].asked[-1].raw


def test_a_large_body_passes(one):
    assert one.chat(messages=[{"role": "user", "content": "x" * 5_000_000}]).status_code == 200


@pytest.mark.parametrize(
    ("body", "says"),
    [(b"no json", "JSON"), (b"[1]", "object"), (b'{"model": 1}', "model"), (b'{"model": "\xff"}', "UTF-8")],
)
def test_what_is_no_request_gets_400(one, body, says):
    answer = one.http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]
    assert asked(one) == 0


def test_a_model_that_nobody_serves_gets_404_with_those_there_are(one):
    answer = one.chat(model="x")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "m, n" in answer.json()["error"]["message"]


def test_a_model_without_any_worker_gets_503(one):
    answer = one.chat(model="n")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_worker_ready")
    assert answer.headers["Retry-After"] == "5"


def test_two_workers_share_the_load(two):
    assert {two.chat().headers["X-Slurminfer-Worker"] for _ in range(4)} == {"w-0", "w-1"}


BASE = "probably meant: a client's base URL ends with /v1"
UNKNOWN = b'{"error":{"message":"POST /v1/x: no such path; the engine has: /v1/y","type":"t","param":null,%b}}'


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"Not Found", "text/plain"),
        (b'{"detail":"Not Found"}', "application/json"),
        (UNKNOWN % b'"code":"unknown_url"', "application/json"),
    ],
)
@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/v1/nothing", "no such path; there are: "),
        ("/v1/chat/completion", "no such path; /v1/chat/completions is probably meant; there are: "),
        ("/v1/chat/completions/chat/completions", f"no such path; /v1/chat/completions is {BASE}; there are: "),
        ("/v1/rerank", "the engine that serves this model does not have it; there are: "),
    ],
)
def test_a_path_that_the_worker_does_not_know_is_answered_with_those_that_the_endpoint_has(one, said, kind, path, why):
    async def unknown(asked):
        await asked.whole(said, status=404, kind=kind)

    one.stubs[0].behaviour = unknown
    answer = one.http.post(path, json={"model": "m"})
    error = answer.json()["error"]
    assert answer.status_code == 404 and error["code"] == "unknown_url"
    assert error["message"].startswith(f"POST {path}: {why}/health, ")
    assert "/v1/batches, /v1/chat/completions" in error["message"] and "/v1/y" not in error["message"]


def test_a_pattern_gives_clients_with_names_of_their_own_a_model(relayed):
    one = relayed(rule=[RuleSpec(model="claude-*", serve="m"), RuleSpec(model="gpt-*", serve="n")])
    first, second = one.add("w-0"), one.add("w-1", model="n")
    for path, name in (("/v1/messages", "claude-sonnet-4-5"), ("/v1/messages/count_tokens", "claude-haiku-4-5")):
        body = {"model": name, "max_tokens": 9, "messages": CHAT["messages"]}
        first.behaviour = answer if path == "/v1/messages" else _count
        assert one.http.post(path, json=body).status_code == 200
        assert first.asked[-1].body["model"] == "m"
    assert one.http.post("/v1/responses", json={"model": "gpt-5-codex", "input": "Hi"}).status_code == 200
    assert second.asked[-1].body["model"] == "n"
    unknown = one.http.post("/v1/chat/completions", json={**CHAT, "model": "o3"})
    assert unknown.status_code == 404 and unknown.json()["error"]["code"] == "model_not_found"


def test_names_that_clients_make_up_are_not_remembered(relayed, monkeypatch):
    """There may be any number of them; what is learned is of the model behind."""
    learned, asked = [], []

    class Noting(Lengths):
        def prompted(self, model, prompt_bytes, prompt_tokens):
            learned.append(model)

        def bytes_per_token(self, model):
            asked.append(model)
            return super().bytes_per_token(model)

    monkeypatch.setattr(server, "Lengths", Noting)
    one = relayed(rule=[RuleSpec(model="claude-*", serve="m")])
    one.add("w-0")
    for number in range(3):
        assert one.chat(model=f"claude-{number}").status_code == 200
    assert one.chat(model="made-up").status_code == 404
    assert (learned, asked) == (["m"] * 3, ["m"] * 3 + [""])


async def _count(asked):
    await asked.whole({"count": 3})


def test_other_404s_of_an_engine_are_its_own(one):
    async def no_adapter(asked):
        await asked.whole(UNKNOWN % b'"code":404', status=404)

    one.stubs[0].behaviour = no_adapter
    assert one.http.post("/v1/unload_lora_adapter", json={}).content == UNKNOWN % b'"code":404'


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1//unload_lora_adapter/", "/v1/%6coad_lora_adapter"])
def test_what_changes_an_engine_for_everybody_is_for_the_deployments_own_key(one, path):
    alice = one.add_tenant("a", name="alice")
    refused = alice.post(path, json={"lora_name": "x", "lora_path": "/etc"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "admin_key_required")
    assert not one.stubs[0].asked
    one.http.post(path, json={"lora_name": "x", "lora_path": "/etc"})
    assert len(one.stubs[0].asked) == 1


def test_other_content_than_json_passes_as_it_comes(one):
    async def audio(asked):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
        await asked.send(head, chunk(b"ab"), chunk(b"cd"), LAST)

    one.stubs[0].behaviour = audio
    assert one.http.post("/v1/audio/speech", json={"model": "m"}).content == b"abcd"


def test_other_content_that_breaks_off_breaks_the_connection(one):
    async def audio(asked):
        await asked.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"ab")
        )
        asked.cut()

    one.stubs[0].behaviour = audio
    with pytest.raises(Exception, match=r"peer closed|incomplete"):
        one.http.post("/v1/audio/speech", json={"model": "m"})


# Workers that are lost before the first byte.


def test_a_refused_connection_goes_to_another_worker(two):
    dead, alive = first_and_other(two)
    two.kill(dead)
    assert two.chat().headers["X-Slurminfer-Worker"] == alive.id
    assert two.suspects[-1].kind == "connect"
    assert two.report().counters.retries == 1


def test_a_relay_without_descriptors_blames_no_worker(two, monkeypatch):
    async def fail(self):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(SocketPool, "_connect", fail)
    answer = two.chat()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert not two.suspects


def test_nor_does_one_whose_idle_connection_was_closed_meanwhile(one, monkeypatch):
    assert one.chat().status_code == 200
    one.stubs[0].behaviour = drop

    async def fail(self):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(SocketPool, "_connect", fail)
    assert one.chat().status_code == 503
    assert not one.suspects


async def close_after_the_head(asked):
    await asked.send(HEAD)
    asked.cut()


async def end_without_an_event(asked):
    await asked.send(HEAD, LAST)


async def say_nothing(asked):
    await asked.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n")


async def say_half(asked):
    await asked.send(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"id": ')
    asked.cut()


async def say_half_until_the_connection_ends(asked):
    await asked.send(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{"id": ')
    asked.writer.close()


async def say_garbage(asked):
    await asked.send(b"\x16\x03\x01garbage\r\n\r\n")


async def say_garbage_in_a_stream(asked):
    await asked.send(HEAD, chunk(b"<html>\n\n"), LAST)


async def say_garbage_as_json(asked):
    await asked.whole(b"<html>")


FAULTS = [drop, close_after_the_head, say_nothing, say_half, say_half_until_the_connection_ends]
FAULTS += [say_garbage, say_garbage_in_a_stream, say_garbage_as_json, end_without_an_event]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_worker_that_answers_nothing_is_replaced_in_the_same_request(two, fault, stream):
    bad, good = first_and_other(two)
    bad.behaviour = fault
    answer = two.chat(stream=stream)
    assert (answer.status_code, text_of(answer), is_done(answer)) == (200, TEXT, stream)
    assert answer.headers["X-Slurminfer-Worker"] == good.id
    assert two.suspects[-1].slot == two.views[bad.id].slot
    assert text_of(two.chat()) == TEXT
    assert len([one for one in bad.asked if one.body]) <= 2, "it is not asked again at once"


def test_an_answer_is_decoded_once(two, monkeypatch):
    decoded = []

    def decode(kind, body):
        decoded.append(body)
        return tokens_of(kind, body)

    first_and_other(two)
    bad, _ = first_and_other(two)  # both have a connection now, so that no task is needed
    bad.behaviour = say_garbage_as_json
    monkeypatch.setattr(outcome, "tokens_of", decode)
    assert text_of(two.chat()) == TEXT
    assert len(decoded) == 2 and decoded[0] == b"<html>"


@pytest.mark.usefixtures("short_suspicion")
@pytest.mark.parametrize("fault", [close_after_the_head, say_half, say_garbage_in_a_stream, end_without_an_event])
def test_where_all_workers_answer_nothing_that_is_an_error(two, fault):
    for stub in two.stubs:
        stub.behaviour = fault
    answer = two.chat(stream=True)
    assert answer.status_code in (502, 503)
    assert answer.json()["error"]["type"] == "server_error"
    assert asked(two) == 2, "no worker twice"


# Answers that are errors.


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_clients_error_passes_and_harms_nobody(one, status):
    async def refuse(asked):
        await asked.whole({"error": {"message": "no"}}, status=status)

    one.stubs[0].behaviour = refuse
    assert [one.chat().status_code for _ in range(25)] == [status] * 25
    assert not one.suspects
    one.stubs[0].behaviour = answer
    assert one.chat().status_code == 200


@pytest.mark.parametrize("status", [429, 503])
def test_a_full_engine_is_passed_over(two, status):
    async def full(asked):
        await asked.whole({"error": {"message": "full"}}, status=status)

    full_one, other = first_and_other(two)
    full_one.behaviour = full
    assert two.chat().headers["X-Slurminfer-Worker"] == other.id
    other.behaviour = full
    answer = two.chat()
    assert (answer.status_code, answer.json()["error"]["message"]) == (status, "full")
    assert answer.headers["Retry-After"] == "5"
    assert not two.suspects


async def die(asked):
    asked.stub.health = 503
    await asked.whole({"error": {"message": "the engine has died"}}, status=500)


async def fail(asked):
    await asked.whole({"error": {"message": "failed"}}, status=500)


def test_a_500_of_an_engine_that_lives_passes(two):
    for stub in two.stubs:
        stub.behaviour = fail
    assert [two.chat().status_code for _ in range(3)] == [500] * 3
    assert {suspect.kind for suspect in two.suspects} == {"status"}, "the supervisor decides"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"Internal Server Error", "the worker answered 500: Internal Server Error"),
        (b"<html><h1>Oops</h1></html>", "the worker answered 500"),
        (b"", "the worker answered 500"),
        (b'"oops"', 'the worker answered 500: "oops"'),
    ],
)
def test_an_error_of_an_engine_that_is_no_json_gets_the_shape_of_openais(one, said, message):
    async def fail(asked):
        await asked.whole(said, status=500, kind="text/plain")

    one.stubs[0].behaviour = fail
    for stream in (False, True):
        answer = one.chat(stream=stream)
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/json"
        assert (answer.json()["error"]["message"], answer.json()["error"]["type"]) == (message, "server_error")


def test_engines_that_are_lost_soon_after_their_500_count(relay):
    async def die_later(asked):
        await asked.whole({"error": {"message": "dying"}}, status=500)

    for number in range(MOST_TAKEN + 1):
        relay.add(f"w-{number}", die_later)
    for killed in range(1, MOST_TAKEN + 1):
        assert relay.chat(n=1).status_code == 500
        dying = next(stub for stub in relay.stubs if stub.asked and stub.health == 200)
        dying.health = 503
        relay.tell(dying.id, choosable=False, trouble="silent")
        assert asked(relay) == killed
    assert relay.chat(n=1).status_code == 502
    assert relay.chat(n=2).status_code == 500


def test_a_500_of_an_engine_that_dies_goes_to_another(two):
    dying, other = first_and_other(two)
    dying.behaviour = die
    assert two.chat().headers["X-Slurminfer-Worker"] == other.id


@pytest.mark.parametrize("behaviour", [die, drop])
def test_a_request_that_kills_engines_takes_four_and_is_not_sent_again(relay, behaviour):
    for number in range(6):
        relay.add(f"w-{number}", behaviour)
    answer = relay.chat(n=1)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "worker_lost")
    assert answer.headers["X-Should-Retry"] == "false"
    assert asked(relay) == MOST_TAKEN
    for stub in relay.stubs:
        stub.behaviour, stub.health = globals()["answer_"], 200
    again = relay.chat(n=1)
    assert (again.status_code, again.json()["error"]["code"]) == (502, "worker_lost")
    assert relay.chat(n=2).status_code == 200


def test_workers_that_must_end_anyway_are_held_against_nobody(relay):
    async def end(asked):
        relay.server.view(
            View(
                [replace(view, state="draining") if view.id == asked.stub.id else view for view in relay.views.values()]
            )
        )
        asked.cut()

    for number in range(6):
        relay.add(f"w-{number}", end)
    relay.add("w-6")
    assert {relay.chat(n=1).status_code for _ in range(3)} == {200}


def test_a_worker_that_talks_nonsense_is_no_lost_worker(relay):
    for number in range(3):
        relay.add(f"w-{number}", say_garbage)
    relay.add("w-3")
    assert {text_of(relay.chat(n=1)) for _ in range(3)} == {TEXT}


answer_ = answer


# Clients that go.


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_stops_its_worker_at_once(one, stream, eventually):
    async def begin(asked):
        if stream:
            await asked.answer(words=2)
        await asked.forever()

    stub = one.stubs[0]
    stub.behaviour = begin
    body = json.dumps({**CHAT, "stream": stream}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Length: {len(body)}\r\n"
    )
    with socket.create_connection(one.address) as client:
        client.sendall(head.encode() + b"\r\n" + body)
        eventually(lambda: stub.asked)
        eventually(lambda: not one.is_idle())
    eventually(lambda: stub.aborted)
    eventually(one.is_idle)
    assert not one.suspects, "a client's going is not the worker's fault"
    assert one.report().counters.requests[("/v1/chat/completions", 499)] == 1


def test_a_client_that_does_not_read_stops_its_worker_and_then_gets_everything(one, eventually):
    said = 0

    async def flood(asked):
        nonlocal said
        await asked.send(HEAD)
        for number in range(3000):
            asked.writer.write(chunk(event(f"{number} " + "x" * 10_000)))
            await asked.writer.drain()
            said = number
        await asked.send(chunk(DONE), LAST)

    one.stubs[0].behaviour = flood
    with one.http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
        eventually(lambda: said > 10)
        last = -1

        def stands_still():
            nonlocal last
            before, last = last, said
            return before == last

        eventually(stands_still)
        assert said < 2999
        assert one.http.post("/v1/embeddings", content=b"?").status_code == 400, "others do not wait for it"
        found = b"".join(response.iter_raw())
    assert found.count(b"data: {") == 3000 and found.endswith(DONE)


# Usage.


@pytest.mark.parametrize("asks", [True, False])
def test_usage_is_counted_and_shown_only_to_who_asks(one, asks):
    fields = {"stream_options": {"include_usage": True}} if asks else {}
    answer = one.chat(stream=True, **fields)
    assert one.stubs[0].asked[-1].body["stream_options"] == {"include_usage": True}
    shown = [event["usage"] for event in events_of(answer) if event.get("usage")]
    assert len(shown) == asks
    assert (text_of(answer), is_done(answer)) == (TEXT, True)
    used = one.report().usage["one"]
    assert (used.requests, used.prompt_tokens, used.generated_tokens) == (1, 7, 6)
    assert one.run(lambda: one.board.spent(0, 0)[2]) == 13


def test_cached_tokens_are_counted(one):
    async def cached(asked):
        usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}
        await asked.whole({**ANSWER, "usage": usage})

    one.stubs[0].behaviour = cached
    one.chat()
    assert one.report().usage["one"].cached_tokens == 4
    assert one.report().counters.cached_tokens == 4


@pytest.mark.parametrize("says", [True, False])
def test_only_what_engines_say_of_their_caches_is_compared_with_what_was_expected(one, says):
    async def answer(asked):
        details = {"prompt_tokens_details": {"cached_tokens": 0}} if says else {}
        usage = {"prompt_tokens": 600, "completion_tokens": 1, **details}
        await asked.whole({**ANSWER, "usage": usage})

    one.stubs[0].behaviour = answer
    for _ in range(2):
        one.chat(messages=[{"role": "user", "content": "word " * 400}])
    assert (one.report().counters.expected_cached_tokens > 0) == says


# Streams in pieces.


def test_a_stream_may_be_cut_anywhere(one):
    events = event("a") + event("b", "stop") + usage_event(1, 2) + DONE
    stream = HEAD + chunk(events[:40]) + chunk(events[40:90]) + chunk(events[90:]) + LAST
    for cut in range(1, len(stream), 7):

        async def pieces(asked, cut=cut):
            await asked.send(stream[:cut], stream[cut:])

        one.stubs[0].behaviour = pieces
        answer = one.chat(stream=True)
        assert (text_of(answer), is_done(answer)) == ("ab", True), cut


def test_events_arrive_before_the_next_one_is_made(one):
    go = threading.Semaphore(0)

    async def stepwise(asked):
        await asked.send(HEAD)
        for number in range(3):
            await asked.send(chunk(event(str(number))))
            while not go.acquire(blocking=False):
                await asyncio.sleep(0.005)
        await asked.send(chunk(DONE), LAST)

    one.stubs[0].behaviour = stepwise
    with one.http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
        lines = (line for line in response.iter_lines() if line)
        for number in range(3):
            assert json.loads(next(lines)[6:])["choices"][0]["delta"]["content"] == str(number)
            go.release()
        assert next(lines) == "data: [DONE]"


def test_a_comment_passes_and_a_worker_may_still_be_replaced(two):
    async def wait_and_die(asked):
        await asked.send(HEAD, chunk(b": still computing\n\n"))
        asked.cut()

    bad, _ = first_and_other(two)
    bad.behaviour = wait_and_die
    answer = two.chat(stream=True)
    assert answer.text.startswith(": still computing\n\n")
    assert is_done(answer)
    assert [event["choices"][0]["delta"].get("content") for event in json_events(answer)][:2] == ["one", " two"]


def json_events(answer):
    data = [line for line in answer.text.split("\n\n") if line.startswith("data: {")]
    return [json.loads(line[6:]) for line in data]


def test_an_error_event_of_a_worker_that_lives_passes(one):
    async def sorry(asked):
        error = b'data: {"error": {"message": "cannot", "code": 400}}\n\n'
        await asked.send(HEAD, chunk(event("a")), chunk(error), LAST)

    one.stubs[0].behaviour = sorry
    answer = one.chat(stream=True)
    assert events_of(answer)[-1]["error"]["message"] == "cannot"
    assert not is_done(answer)


_ = hang


@pytest.mark.parametrize("kind", [b"text/event-stream", b"text/event-stream; charset=utf-8"])
def test_streams_of_every_engine_pass_proxies_as_they_come_and_are_utf8(one, kind):
    async def bare(asked):
        await asked.send(HEAD.replace(b"text/event-stream; charset=utf-8", kind) + chunk(event("\u00e9")))
        await asked.send(chunk(DONE) + LAST)

    one.stubs[0].behaviour = bare
    headers = one.chat(stream=True).headers
    assert headers.get_list("Content-Type") == ["text/event-stream; charset=utf-8"]
    assert (headers["X-Accel-Buffering"], headers["Cache-Control"]) == ("no", "no-cache")
    one.stubs[0].behaviour = answer
    assert "X-Accel-Buffering" not in one.chat().headers
