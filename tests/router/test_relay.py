"""Requests through a real router to stub workers."""

import json
import socket

import httpx
import openai
import pytest

from slurminfer.router.relay import outcome

TEXT = "Hello from the stub"
CHAT = {"model": "stub-model", "messages": [{"role": "user", "content": "Hi"}]}


def both_orders(two):
    """The worker that the next request goes to, and the other one: ties go to the one whose turn is longest ago."""
    first = two.chat().headers["X-Stub"]
    return sorted(two.stubs, key=lambda stub: stub.id == first)


def test_openai_client_gets_a_whole_answer(one):
    answer = one.openai.chat.completions.create(**CHAT)
    assert answer.choices[0].message.content == TEXT


def test_openai_client_streams(one):
    words = [chunk.choices[0].delta.content for chunk in one.openai.chat.completions.create(**CHAT, stream=True)]
    assert "".join(words) == TEXT


def test_events_arrive_before_the_next_one_is_made(one):
    stub = one.stubs[0]
    stub.stepwise = True
    stub.go.release()
    chunks = iter(one.openai.chat.completions.create(**CHAT, stream=True))
    for word in ["Hello", " from", " the", " stub"]:
        assert next(chunks).choices[0].delta.content == word
        stub.go.release()  # only now may the stub write the next one
    assert list(chunks) == []


def test_body_bytes_query_and_headers_arrive_as_they_were_sent(one):
    body = b'{ "model" :"stub-model", "guided_json": {"b":1,"a":2}, "x": 1e2 , "\xc3\xa9": "\\u00e9" }'
    headers = {"Content-Type": "application/json", "X-Request-Id": "abc", "Authorization": f"Bearer {one.run.key()}"}
    answer = httpx.post(f"{one.url}/v1/chat/completions?a=%20b", content=body, headers=headers)
    assert answer.status_code == 200
    path, sent, received = one.stubs[0].requests[-1]
    assert (path, received) == ("/v1/chat/completions?a=%20b", body)
    assert sent["x-request-id"] == "abc"
    assert sent["authorization"] == "Bearer key-of-cpu-0", "the engine's own key, not the client's"


def test_any_other_post_below_v1_is_passed_on(one):
    assert one.http.post("/v1/embeddings", json={"model": "stub-model", "input": "x"}).status_code == 200
    assert one.stubs[0].requests[-1][0] == "/v1/embeddings"


def test_form_uploads_pass_without_a_model(one):
    answer = one.http.post("/v1/audio/transcriptions", files={"file": b"RIFF"})
    assert answer.status_code == 200
    assert b"RIFF" in one.stubs[0].requests[-1][2]


def test_large_body_passes(one):
    assert one.chat(messages=[{"role": "user", "content": "x" * 5_000_000}]).status_code == 200


def test_body_beyond_the_limit_gets_413_in_openai_shape(one):
    answer = one.chat(messages=[{"role": "user", "content": "x" * (64 * 2**20)}])
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_two_workers_share_the_load(two):
    workers = {two.chat().headers["X-Stub"] for _ in range(4)}
    assert workers == {"cpu-0", "cpu-1"}
    assert [len(stub.requests) for stub in two.stubs] == [2, 2]


def test_the_worker_with_less_in_flight_is_chosen(two, eventually):
    busy, other = two.stubs
    busy.mode = other.mode = "hang"
    with two.http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as first:
        if first.headers["X-Stub"] == other.id:
            busy, other = other, busy
        eventually(lambda: two.workers()[busy.id]["in_flight"] == 1)
        other.mode = "answer"
        assert {two.chat().headers["X-Stub"] for _ in range(3)} == {other.id}


def test_refused_connection_goes_to_another_worker(two):
    dead, alive = both_orders(two)
    dead.stop()
    assert two.chat().headers["X-Stub"] == alive.id
    assert not two.workers()[dead.id]["healthy"]


def test_worker_lost_before_the_first_byte_is_replaced_in_the_same_request(two, eventually):
    dying, other = both_orders(two)
    dying.mode = "drop"
    assert two.chat().headers["X-Stub"] == other.id
    eventually(lambda: "retries_total 1.0" in two.http.get("/metrics").text)  # relays report once a second


def test_a_request_that_has_taken_workers_down_is_known_to_all_relays(empty, monkeypatch, eventually):
    monkeypatch.setattr(outcome, "PAUSE_S", 0.01)
    empty.configure(relays=2)
    for number in range(6):
        empty.add(f"cpu-{number}")
    empty.start_router()
    for stub in empty.stubs:
        stub.mode = "drop"
    first = empty.chat(n=1)
    assert (first.status_code, first.json()["error"]["code"]) == (502, "worker_lost")
    for stub in empty.stubs:
        stub.mode = "answer"
    taken = sum(len(stub.requests) for stub in empty.stubs)
    headers, body = {"Authorization": f"Bearer {empty.run.key()}"}, first.request.content
    for _ in range(12):  # by connections of their own, which the kernel gives to either relay
        again = httpx.post(f"{empty.url}/v1/chat/completions", content=body, headers=headers)
        assert again.status_code == 502
    assert sum(len(stub.requests) for stub in empty.stubs) == taken
    eventually(lambda: empty.chat(n=2).status_code == 200)


def test_lost_worker_is_chosen_again_after_a_good_probe(one, eventually):
    one.stubs[0].mode = "drop"
    assert one.chat().status_code == 503
    one.stubs[0].mode = "answer"
    eventually(lambda: one.chat().status_code == 200)


def test_a_stream_whose_worker_dies_goes_on_at_another(two):
    dying, _ = both_orders(two)
    dying.mode = "cut"
    words = [chunk.choices[0].delta.content for chunk in two.openai.chat.completions.create(**CHAT, stream=True)]
    assert "".join(word or "" for word in words).startswith("Hello from")


def test_openai_client_raises_where_a_stream_breaks(one):
    one.stubs[0].mode = "cut"
    words = []
    with pytest.raises(openai.APIError, match="broke off"):
        for chunk in one.openai.chat.completions.create(**CHAT, stream=True):
            words.append(chunk.choices[0].delta.content)
    assert words == ["Hello", " from"]


def test_whole_answers_that_break_everywhere_get_502_in_openai_shape(two):
    for stub in two.stubs:
        stub.mode = "cut"
    answer = two.chat()
    assert answer.status_code == 502
    assert answer.json()["error"]["type"] == "server_error"
    assert answer.json()["error"]["code"] == "answer_broke_off"
    assert "X-Should-Retry" not in answer.headers
    assert sum(len(stub.requests) for stub in two.stubs) == 2


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_hangs_up_stops_the_worker_at_once(one, stream, eventually):
    stub = one.stubs[0]
    stub.mode = "hang"
    body = json.dumps({**CHAT, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {one.run.key()}\r\n"
    host, port = one.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        eventually(lambda: stub.requests)
        eventually(lambda: one.workers()["cpu-0"]["in_flight"] == 1)
    assert stub.aborted.wait(5)
    eventually(lambda: one.workers()["cpu-0"]["in_flight"] == 0)
    assert one.workers()["cpu-0"]["healthy"], "a client's going is not the worker's fault"


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500])
def test_a_workers_own_error_passes_and_does_not_harm_it(one, status):
    one.stubs[0].status = status
    assert [one.chat().status_code for _ in range(25)] == [status] * 25
    assert one.workers()["cpu-0"]["healthy"]
    one.stubs[0].status = 200
    assert one.chat().status_code == 200
