"""The router's own endpoints and answers."""

import httpx
import openai
import pytest

from slurminfer.core.records import WorkerState


@pytest.mark.parametrize("given", [None, b"Bearer wrong", b"Basic \xff"])
def test_missing_or_wrong_key_gets_401_in_openai_shape(one, given):
    for path in ("/v1/models", "/metrics", "/nonsense"):  # all pages: api/test_pages.py
        answer = httpx.get(one.url + path, headers={"Authorization": given} if given else {})
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "authentication_error"


def test_openai_client_with_a_wrong_key_raises_authentication_error(one):
    wrong = one.openai.with_options(api_key="wrong")
    with pytest.raises(openai.AuthenticationError, match="wrong API key"):
        wrong.chat.completions.create(model="stub-model", messages=[])
    assert one.stubs[0].requests == []


def test_health_needs_no_key_and_counts_the_workers_for_those_who_have_it(one):
    answer = httpx.get(f"{one.url}/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert one.http.get("/health").json()["workers"] == {
        "ready": 1,
        "unreachable": 0,
        "starting": 0,
        "draining": 0,
        "gone": 0,
    }


def test_models_lists_what_choosable_workers_serve(one):
    assert [model.id for model in one.openai.models.list()] == ["stub-model"]
    assert one.openai.models.retrieve("stub-model").id == "stub-model"


def test_unknown_model_gets_404_that_lists_the_valid_ones(one):
    with pytest.raises(openai.NotFoundError, match=r"no model 'gpt-9' here; valid models: stub-model") as caught:
        one.openai.chat.completions.create(model="gpt-9", messages=[])
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"model": 3}', b"\xff\xfe", b'"text"', b'{"x":' + b"[" * 99_999])
def test_invalid_json_gets_400_in_openai_shape(one, body):
    answer = one.http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert one.stubs[0].requests == []


def test_unknown_path_and_method_get_openai_shaped_errors(one):
    unknown = one.http.get("/nonsense").json()["error"]
    assert unknown["message"].startswith("GET /nonsense: no such path; there are: /health, ")
    assert unknown["message"].endswith("; /docs says more") and unknown["code"] == "unknown_url"
    refused = one.http.put("/v1/models")
    assert refused.status_code == 405
    assert refused.json()["error"]["message"] == "PUT /v1/models: method not allowed; expected GET"


def test_path_that_leaves_v1_is_not_passed_on(one):
    answer = one.http.send(one.http.build_request("POST", f"{one.url}/v1/%2e%2e/flush_cache", json={}))
    assert answer.status_code == 404
    assert one.stubs[0].requests == []


def test_without_a_ready_worker_503_says_when_to_come_back_and_what_there_is(empty):
    empty.add("a-0").publish(WorkerState.STARTING)
    empty.add("b-0").publish(WorkerState.DRAINING)
    empty.add("c-0").publish(WorkerState.GONE)
    empty.configure(queue_timeout=0.1)
    empty.start_router()
    answer = empty.chat()
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "0 ready, 0 unreachable, 1 starting, 1 draining, 1 gone" in answer.json()["error"]["message"]
    health = httpx.get(f"{empty.url}/health")
    assert (health.status_code, health.json()["error"]["message"]) == (503, "no worker is ready")
    assert empty.http.get("/v1/models").status_code == 503


def test_metrics_tell_requests_workers_and_times(one, eventually):
    one.chat()
    one.http.get("/nonsense")
    answered = 'slurminfer_router_requests_total{path="/v1/chat/completions",status="200"} 1.0'
    eventually(lambda: answered in one.http.get("/metrics").text)  # relays report once a second
    text = one.http.get("/metrics").text
    for line in [
        'slurminfer_router_requests_total{path="other",status="404"} 1.0',
        'slurminfer_router_worker_in_flight{worker="cpu-0"} 0.0',
        'slurminfer_router_worker_state{state="ready",worker="cpu-0"} 1.0',
        'slurminfer_router_first_byte_seconds_count{path="/v1/chat/completions"} 1.0',
    ]:
        assert line in text


def test_workers_shows_each_worker(one):
    known = {
        "id": "cpu-0", "state": "ready", "url": None, "in_flight": 0, "capacity": 4,
        "model": "stub-model", "healthy": True, "reason": "",
    }  # fmt: skip
    assert one.workers()["cpu-0"].items() >= known.items()
