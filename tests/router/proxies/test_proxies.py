"""Clients that reach a router through nginx, HAProxy or Apache."""

import json
from pathlib import Path

import httpx
import openai
import pytest

from .conftest import APACHE_LINES, HAPROXY_LINES, NGINX_LINES, PREFIX

pytestmark = pytest.mark.process

CHAT = {"model": "stub-model", "messages": []}
GUIDE = Path(__file__).parents[3] / "docs/guide/endpoint.md"


@pytest.mark.parametrize("lines", [NGINX_LINES, HAPROXY_LINES, APACHE_LINES])
def test_the_guide_has_the_settings_that_are_tried_here(lines):
    guide = GUIDE.read_text(encoding="utf-8")
    for line in lines.strip().splitlines():
        assert line.strip() in guide, line


@pytest.mark.parametrize("below", ["", PREFIX])
def test_events_come_one_by_one(proxy, below):
    stub = proxy.deployment.stubs[0]
    stub.stepwise = True
    stub.go.release()
    with (
        proxy.client() as client,
        client.stream("POST", f"{below}/v1/chat/completions", json={**CHAT, "stream": True}) as answer,
    ):
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        lines = answer.iter_lines()
        for word in ("Hello", " from", " the", " stub"):
            said = next(line for line in lines if line)
            assert json.loads(said.removeprefix("data: "))["choices"][0]["delta"]["content"] == word
            stub.go.release()  # the next word is made when this one has come
        assert "data: [DONE]" in list(lines)


def test_a_client_that_leaves_ends_the_computation(proxy):
    if proxy.name == "apache2":
        pytest.skip("Apache notices that a client has left when there is more for it")
    stub = proxy.deployment.stubs[0]
    stub.mode = "hang"
    client = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key=proxy.deployment.run.key(), max_retries=0)
    stream = client.chat.completions.create(model="stub-model", messages=[], stream=True)
    assert next(iter(stream)).choices[0].delta.content == "Hello"
    stream.close()
    assert stub.aborted.wait(30)
    client.close()


def test_bodies_ids_and_errors_pass(proxy):
    with proxy.client() as client:
        large = {**CHAT, "messages": [{"role": "user", "content": "x" * 3_000_000}]}
        assert client.post("/v1/chat/completions", json=large).status_code == 200
        assert len(proxy.deployment.stubs[0].requests[-1][2]) > 3_000_000
        answer = client.post("/v1/chat/completions", json={**CHAT, "model": "none"}, headers={"X-Request-Id": "mine"})
        assert (answer.status_code, answer.headers["X-Request-Id"]) == (404, "mine")
        assert answer.json()["error"]["code"] == "model_not_found"
        assert client.head("/v1/models").status_code == 200
    assert httpx.get(f"{proxy.url}/v1/models").status_code == 401


def test_pages_of_allowed_origins_can_ask(proxy):
    asked = {"Origin": "http://localhost:5173", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{proxy.url}/v1/chat/completions", headers=asked)
    assert answer.status_code == 204 and answer.headers["Access-Control-Allow-Origin"] == "http://localhost:5173"
