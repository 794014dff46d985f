"""What OpenAI's clients for Python and JavaScript make of a router: errors, ids, retries, streams that are left."""

import json
import subprocess
import time
import types
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from slurminfer.core.records import WorkerState
from slurminfer.router.tenants.key_store import KeyStore

from ..support.openai_js import FOLDER, MISSING, NODE

pytestmark = pytest.mark.process

ASK: dict[str, Any] = {"model": "stub-model", "messages": [{"role": "user", "content": "Hi"}]}
WALK = FOLDER.parents[2] / "tests/support/javascript/walk.mjs"


class Pauses(types.SimpleNamespace):
    """The module `time` for OpenAI's client: its pauses before it asks again are noted, and take no time."""

    def __init__(self) -> None:
        super().__init__(**vars(time))
        self.slept: list[float] = []  # seconds
        self.meanwhile: Callable[[], object] = lambda: None
        self.sleep = self._sleep

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.meanwhile()


@pytest.fixture
def pauses(monkeypatch):
    pauses = Pauses()
    monkeypatch.setattr("openai._base_client.time", pauses)
    return pauses


def client(deployment, *, key=None, retries=0):
    return openai.OpenAI(
        base_url=f"{deployment.url}/v1", api_key=key or deployment.run.key(), max_retries=retries, timeout=20
    )


CASES: list[tuple[int, type[openai.APIStatusError], Any]] = [
    (400, openai.BadRequestError, lambda asked: asked.post("/chat/completions", body=[], cast_to=object)),
    (401, openai.AuthenticationError, lambda asked: asked.with_options(api_key="sk-wrong").models.list()),
    (404, openai.NotFoundError, lambda asked: asked.models.retrieve("none/such")),
    (404, openai.NotFoundError, lambda asked: asked.chat.completions.create(**{**ASK, "model": "none"})),
    (404, openai.NotFoundError, lambda asked: asked.get("/assistants", cast_to=object)),
    (405, openai.APIStatusError, lambda asked: asked.get("/chat/completions", cast_to=object)),
    (415, openai.APIStatusError, lambda asked: asked.chat.completions.create(
        **ASK, extra_headers={"Content-Encoding": "br"})),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind", "call"), CASES)
def test_each_status_is_the_clients_own_class_with_an_id(one, status, kind, call):
    with client(one) as asked, pytest.raises(kind) as raised:
        call(asked)
    error = raised.value
    assert type(error) is kind and error.status_code == status
    assert error.request_id and error.type and error.body["message"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, openai.PermissionDeniedError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_an_engines_own_errors_are_the_clients_classes_too(one, status, kind):
    one.stubs[0].status = status
    with client(one) as asked, pytest.raises(kind) as raised:
        asked.chat.completions.create(**ASK)
    assert raised.value.status_code == status and raised.value.request_id


def test_ids_and_raw_answers_are_read(one):
    with client(one) as asked:
        given = {"X-Request-Id": "mine-1"}
        assert asked.chat.completions.create(**ASK, extra_headers=given)._request_id == "mine-1"
        raw = asked.chat.completions.with_raw_response.create(**ASK)
        assert raw.parse()._request_id == raw.request_id == raw.headers["X-Request-Id"]
        with asked.chat.completions.with_streaming_response.create(**ASK, stream=True) as answer:
            assert answer.headers["X-Slurminfer-Worker"] == "cpu-0"
            assert "data: [DONE]" in list(answer.iter_lines())
        with asked.chat.completions.stream(**ASK) as stream:
            assert stream.get_final_completion().choices[0].message.content == "Hello from the stub"


def leave_by_close(asked):
    stream = asked.chat.completions.create(**ASK, stream=True)
    next(iter(stream))
    stream.close()


def leave_by_context(asked):
    with asked.chat.completions.create(**ASK, stream=True) as stream:
        next(iter(stream))


def leave_by_raw(asked):
    with asked.chat.completions.with_streaming_response.create(**ASK, stream=True) as answer:
        next(answer.iter_lines())


def leave_by_timeout(asked):
    with pytest.raises(openai.APITimeoutError):
        asked.with_options(timeout=0.5).chat.completions.create(**ASK)


@pytest.mark.parametrize("leave", [leave_by_close, leave_by_context, leave_by_raw, leave_by_timeout])
def test_a_client_that_leaves_ends_the_computation(one, leave):
    one.stubs[0].mode = "hang"
    with client(one) as asked:
        leave(asked)
        assert one.stubs[0].aborted.wait(30)


def test_a_client_comes_back_when_the_router_says_so(empty, pauses, eventually):
    stub = empty.add("cpu-0")
    stub.publish(WorkerState.GONE)
    empty.start_router()

    def start_worker():
        stub.publish()
        eventually(lambda: httpx.get(f"{empty.url}/health").status_code == 200)

    pauses.meanwhile = start_worker
    with client(empty, retries=1) as asked:
        assert asked.chat.completions.create(**ASK).choices[0].message.content == "Hello from the stub"
    assert pauses.slept == [5], "as Retry-After says"


def test_a_client_gives_up_where_its_limit_stays_used(one, pauses, eventually):
    key = KeyStore(one.run).add("few", requests_per_minute=1)
    eventually(lambda: httpx.get(f"{one.url}/v1/models", headers={"X-Api-Key": key}).status_code == 200)
    with client(one, key=key, retries=2) as asked:
        answer = asked.chat.completions.with_raw_response.create(**ASK)
        assert answer.headers["X-Ratelimit-Limit-Requests"] == "1"
        with pytest.raises(openai.RateLimitError) as raised:
            asked.chat.completions.create(**ASK)
    assert raised.value.code == "rate_limit_exceeded" and int(raised.value.response.headers["Retry-After"]) > 0
    assert len(pauses.slept) == 2 and len(one.stubs[0].requests) == 1


def test_a_request_under_which_workers_were_lost_is_not_sent_again(empty, pauses):
    for index in range(5):
        empty.add(f"cpu-{index}").mode = "die"
    empty.start_router()
    with client(empty, retries=5) as asked, pytest.raises(openai.InternalServerError) as raised:
        asked.chat.completions.create(**ASK)
    assert (raised.value.status_code, raised.value.code) == (502, "worker_lost")
    assert pauses.slept == []


@pytest.mark.skipif(NODE is None or not FOLDER.exists(), reason=MISSING)
def test_openais_client_for_javascript(one):
    words = [NODE, WALK, FOLDER / "index.mjs", f"{one.url}/v1", one.run.key(), "stub-model"]
    ran = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said.pop("errors") == {
        "key": ["AuthenticationError", 401, "invalid_api_key", True],
        "model": ["NotFoundError", 404, "model_not_found", True],
        "retrieved": ["NotFoundError", 404, "model_not_found", True],
        "path": ["NotFoundError", 404, "unknown_url", True],
        "body": ["BadRequestError", 400, None, True],
        "abort": ["APIUserAbortError", None, None, False],
    }
    assert said == {
        "models": ["stub-model"], "model": "stub-model", "whole": ["Hello from the stub", "string"],
        "raw": "application/json; charset=utf-8", "streamed": "Hello from the stub",
        "aborted": True,
    }  # fmt: skip
