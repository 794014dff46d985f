"""/v1/responses/ID by OpenAI's own client, through a real router."""

import asyncio
import contextlib
import socket

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from slurminfer.router.api import responses
from slurminfer.router.relay.surfaces.responses.items import read_items
from slurminfer.router.responses.ids import new_id, required
from slurminfer.router.tenants.key_store import KeyStore

TEXT = "Hello from the stub"


@pytest.fixture
def other(one, eventually):
    """The client of another tenant."""
    key = KeyStore(one.run).add("course")
    client = openai.OpenAI(base_url=f"{one.url}/v1", api_key=key, max_retries=0, timeout=20)
    eventually(lambda: httpx.get(f"{one.url}/v1/models", headers={"X-Api-Key": key}).status_code == 200)
    with client:
        yield client


def ask(deployment, **fields):
    return deployment.openai.responses.create(**{"model": "stub-model", "input": "Hi", **fields})


def test_a_kept_response_is_as_it_was(one):
    made = ask(one, metadata={"a": "b"}, instructions="Be kind.")
    assert made.output_text == TEXT
    assert one.openai.responses.retrieve(made.id) == made


def test_a_response_that_was_streamed_is_kept_too(one):
    with one.openai.responses.stream(model="stub-model", input="Hi") as stream:
        made = stream.get_final_response()
    assert one.openai.responses.retrieve(made.id).output_text == made.output_text == TEXT


def test_its_input_is_listed(one):
    first = ask(one, input="zero")
    given = [{"role": "user", "content": f"word {n}"} for n in range(5)]
    given.append({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"})
    given.append({"type": "function_call_output", "call_id": "c", "output": "1"})
    made = ask(one, input=given, previous_response_id=first.id)
    items = list(one.openai.responses.input_items.list(made.id, order="asc", limit=3))  # all pages
    assert [item.type for item in items] == ["message"] * 5 + ["function_call", "function_call_output"]
    assert [item.content[0].text for item in items[:5]] == [f"word {n}" for n in range(5)]
    page = one.openai.responses.input_items.list(made.id, limit=2)
    assert [item.id for item in page.data] == [item.id for item in items[:-3:-1]] and page.has_more
    assert len({item.id for item in items}) == len(items)
    with pytest.raises(openai.BadRequestError, match="after"):
        one.openai.responses.input_items.list(made.id, after="msg_1")


def test_a_page_of_its_input_is_made_beside_the_supervisors_loop(one, monkeypatch):
    """An input of 16 MiB takes a while, and the same loop looks after the workers."""

    def read_beside(data):
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return read_items(data)

    monkeypatch.setattr(responses, "read_items", read_beside)
    assert one.openai.responses.input_items.list(ask(one).id).data


def test_large_responses_that_are_read_slowly_leave_room(one, eventually, monkeypatch):
    """Else a tenant could hold 16 MiB of the supervisor's memory with each connection."""
    monkeypatch.setattr(responses, "_MOST_OF_TENANT", 10_000_000)
    path = f"/v1/responses/{ask(one, instructions='i' * 6_000_000).id}"
    host, port = one.url.removeprefix("http://").split(":")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # else the kernel may take all of it
        slow.connect((host, int(port)))
        slow.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {one.run.key()}\r\n\r\n".encode())
        assert slow.recv(12) == b"HTTP/1.1 200"
        assert one.http.get(path).status_code == 503
        refused = one.http.get(f"{path}/input_items")
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
        assert one.http.get(f"/v1/responses/{ask(one).id}").status_code == 200, "a small one has room"
    eventually(lambda: one.http.get(path).status_code == 200)


@pytest.mark.parametrize("input", [b'"a"', b"[null]", b'[{"type":5}]', b"[" + b"[" * 1000])
def test_an_input_that_is_damaged_is_not_there(one, input, caplog):
    made = ask(one)
    (file,) = one.run.responses_path.rglob("*.json")
    data = file.read_bytes()
    before, _, after = data.partition(b'"input":[{')
    file.write_bytes(before + b'"input":' + input + (b"]" * 1001 if input[1:2] == b"[" else b"") + b',"x":[{' + after)
    assert one.http.get(f"/v1/responses/{made.id}/input_items").status_code == 404
    assert "a kept response cannot be used" in caplog.text


def test_a_response_is_removed(one):
    made = ask(one)
    one.openai.responses.delete(made.id)
    for call in (one.openai.responses.retrieve, one.openai.responses.delete, one.openai.responses.cancel):
        with pytest.raises(openai.NotFoundError):
            call(made.id)
    with pytest.raises(openai.BadRequestError):
        ask(one, previous_response_id=made.id)


def test_what_goes_on_with_a_response_that_is_removed_stays(one):
    first = ask(one, input="one?")
    second = ask(one, input="two?", previous_response_id=first.id)
    one.openai.responses.delete(first.id)
    ask(one, input="three?", previous_response_id=second.id)
    assert one.stubs[0].requests[-1][2].count(b'"role":"user"') == 3


def test_a_response_is_its_tenants_alone(one, other):
    made = ask(one)
    calls = (other.responses.retrieve, other.responses.delete, other.responses.cancel, other.responses.input_items.list)
    for call in calls:
        with pytest.raises(openai.NotFoundError):
            call(made.id)
    assert one.openai.responses.retrieve(made.id) == made


def test_nothing_is_cancelled_or_streamed_again(one):
    made = ask(one)
    with pytest.raises(openai.BadRequestError, match="background"):
        one.openai.responses.cancel(made.id)
    with pytest.raises(openai.BadRequestError, match="not streamed again"):
        one.openai.responses.retrieve(made.id, stream=True)


def test_a_router_that_starts_again_has_what_was_kept(one):
    made = ask(one)
    one.stop_router()
    one.start_router()
    assert one.openai.responses.retrieve(made.id) == made
    assert ask(one, previous_response_id=made.id).output_text == TEXT


def test_nothing_is_kept_where_the_spec_says_so(one, eventually):
    made = ask(one)
    one.stop_router()
    assert list(one.run.responses_path.rglob("*.json"))
    one.configure(keep_responses=0)
    one.start_router()
    eventually(lambda: not one.run.responses_path.exists())
    again = ask(one)
    for id in (made.id, again.id):
        with pytest.raises(openai.NotFoundError):
            one.openai.responses.retrieve(id)
    assert not one.run.responses_path.exists()


def samples(one, *names):
    """Values of the router's metrics."""
    found = {family.name: family.samples for family in text_string_to_metric_families(one.http.get("/metrics").text)}
    return {
        tuple(sample.labels.values()): sample.value
        for name in names
        for sample in found[f"slurminfer_router_{name}"]
        if sample.name.endswith(("_total", name)) and (sample.value or not sample.labels)
    }


def test_what_is_kept_not_kept_and_removed_is_counted(one, eventually):
    first, second = ask(one), ask(one)
    for one_more in (ask(one, store=False), second):
        with contextlib.suppress(openai.NotFoundError):
            one.openai.responses.delete(one_more.id)
    file = one.run.responses_path / required(first.id).mark / "x"
    file.parent.rename(file.parent.with_name("away"))
    file.parent.symlink_to("away")
    assert ask(one).store is False
    eventually(lambda: samples(one, "responses_kept") == {(): 2.0})
    eventually(lambda: samples(one, "responses_not_kept") == {("failed",): 1.0})
    assert samples(one, "responses_removed") == {("deleted",): 1.0}
    assert samples(one, "responses_kept_bytes")[()] > 1000
    file.parent.unlink()
    file.parent.with_name("away").rename(file.parent)
    one.stop_router()
    one.start_router()
    eventually(lambda: samples(one, "kept_responses") == {(): 1.0})
    assert 500 < samples(one, "kept_responses_bytes")[()] < 5000


HOSTILE = ["resp_1", "resp_" + "a" * 10_240, "resp_%00", "resp_..%2f..%2fkey", "resp_%2e%2e", "resp_" + "0" * 48,
           "resp_%F0%9F%92%A9", "resp_" + "0" * 48 + "%0a", "resp_%ff", "..%2fresp_1"]  # fmt: skip


@pytest.mark.parametrize("id", HOSTILE)
def test_no_id_names_anything_else(one, id):
    """A 404 of our own for each of them, that does not repeat ten thousand bytes."""
    made = ask(one)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        answer = one.http.request(method, f"/v1/responses/{id}{path}")
        assert answer.status_code in (400, 404, 405, 414), answer.text
        assert len(answer.content) < 1000 and answer.json()["error"]["message"]
    assert one.openai.responses.retrieve(made.id) == made


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=-1", "limit=x", "limit=" + "9" * 5000, "order=up", "after=msg_1", "after=%00"],
)
def test_pages_of_items_are_asked_for_rightly(one, query):
    made = ask(one)
    answer = one.http.get(f"/v1/responses/{made.id}/input_items?{query}")
    assert answer.status_code == 400 and answer.json()["error"]["param"] == query.partition("=")[0]


def test_the_router_removes_what_is_too_old(one, eventually):
    ask(one)
    (file,) = one.run.responses_path.rglob("*.json")
    old = new_id("owner", 1000.0)
    file.rename(file.with_name(f"{old}.json"))
    one.stop_router()
    one.start_router()
    eventually(lambda: not list(one.run.responses_path.rglob("*.json")))


@pytest.mark.parametrize("path", ["resp_1/else", "resp_1/cancel/x"])
def test_other_paths_below_are_none(one, path):
    assert one.http.post(f"/v1/responses/{path}").status_code == 404
    assert one.http.get("/v1/responses").status_code == 405
    assert len(one.stubs[0].requests) == 0
