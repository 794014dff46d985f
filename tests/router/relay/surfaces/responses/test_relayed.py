"""The responses API through a relay, by OpenAI's own client, before stub workers that play chat completions."""

import asyncio
import dataclasses
import json
import socket
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any, Literal

import msgspec
import openai
import pydantic
import pytest
from msgspec import Raw

from slurminfer.router.relay.surfaces.responses import kept
from slurminfer.router.responses import store
from slurminfer.router.responses.ids import new_id, parsed, required
from slurminfer.router.responses.limits import Limits
from slurminfer.router.responses.record import Record
from slurminfer.router.responses.store import ResponseStore

from .....support.small_disk import small_disk_at
from ...relayed import DONE, HEAD, LAST, TEXT, chunk, event, usage_event
from .chats import FUNCTION

ASKED: Any = {"model": "m", "input": "Hi"}


@pytest.fixture
def clients():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def client_of(clients):
    """Makes clients of a relay, with a key."""

    def client_of(relay, key="key"):
        host, port = relay.address
        return clients.enter_context(openai.OpenAI(base_url=f"http://{host}:{port}/v1", api_key=key, max_retries=0))

    return client_of


@pytest.fixture
def client(relay, client_of):
    return client_of(relay)


def whole(client, **fields):
    return client.responses.create(**{**ASKED, **fields})


def streamed(client, **fields):
    with client.responses.stream(**{**ASKED, **fields}) as stream:
        return stream.get_final_response()


def is_kept(client, id):
    with suppress(openai.BadRequestError):
        return bool(whole(client, previous_response_id=id, store=False))
    return False


async def call_weather(asked):
    """Play a model that calls a function, and says what it has returned."""
    last, message = asked.body["messages"][-1], dict[str, Any]()
    if last["role"] == "tool":
        message, finish = {"content": f"It will {last['content']}."}, "stop"
    else:
        function = {"name": "weather", "arguments": '{"city":"Ulm"}'}
        message, finish = (
            {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]},
            "tool_calls",
        )
    if not asked.body.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
        await asked.whole({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
        return
    body = (
        b"data: " + json.dumps({"choices": [{"index": 0, "delta": message, "finish_reason": None}]}).encode() + b"\n\n"
    )
    await asked.send(HEAD, chunk(body), chunk(event(None, finish) + usage_event(7, 3)), chunk(DONE), LAST)


@pytest.mark.parametrize("ask", [whole, streamed])
def test_a_response(relay, client, ask):
    stub = relay.add("w-0")
    response = ask(client, instructions="Be kind.", metadata={"a": "b"})
    assert response.output_text == TEXT
    assert (response.status, response.model, response.metadata) == ("completed", "m", {"a": "b"})
    assert (response.usage.input_tokens, response.usage.output_tokens) == (7, 6)
    seen = stub.asked[-1]
    assert seen.target == "/v1/chat/completions"
    assert seen.body["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert relay.report().counters.requests == {("/v1/responses", 200): 1}
    assert relay.report().usage["one"].generated_tokens == 6


def test_an_asynchronous_client(relay):
    relay.add("w-0")
    host, port = relay.address

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"http://{host}:{port}/v1", api_key="key", max_retries=0) as client:
            one = await client.responses.create(**ASKED)
            async with client.responses.stream(**ASKED, previous_response_id=one.id) as stream:
                types = [event.type async for event in stream]
                return one, types, await stream.get_final_response()

    one, types, two = asyncio.run(ask())
    assert one.output_text == two.output_text == TEXT
    assert two.previous_response_id == one.id
    assert types[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]  # fmt: skip
    assert types[4:10] == ["response.output_text.delta"] * 6
    assert types[10:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done",
                          "response.completed"]  # fmt: skip


class Answer(pydantic.BaseModel):
    """What a scripted engine is asked for."""

    kind: Literal["a", "b"]


def test_parsed_output(relay, client):
    """The stub says the JSON; that an engine keeps to a schema is tested with the engine."""

    async def say_json(asked):
        assert asked.body["response_format"]["json_schema"]["strict"] is True
        choice = {"index": 0, "message": {"role": "assistant", "content": '{"kind":"b"}'}, "finish_reason": "stop"}
        await asked.whole({"choices": [choice]})

    relay.add("w-0", say_json)
    assert client.responses.parse(**ASKED, text_format=Answer).output_parsed == Answer(kind="b")


@pytest.mark.parametrize("ask", [whole, streamed])
def test_a_function_is_called_and_the_conversation_goes_on(relay, client, ask):
    stub = relay.add("w-0", call_weather)
    first = ask(client, tools=[FUNCTION])
    (call,) = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Ulm"})
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = ask(client, tools=[FUNCTION], input=[output], previous_response_id=first.id)
    assert second.output_text == "It will rain."
    assert [message["role"] for message in stub.asked[-1].body["messages"]] == ["user", "assistant", "tool"]
    third = ask(client, tools=[FUNCTION], input=[*[item.to_dict() for item in first.output], output], store=False)
    assert third.output_text == "It will rain."  # without what is kept


def test_tokens_are_counted_by_the_engine(relay, client):
    stub = relay.add("w-0", engine="sglang")
    first = whole(client, input="one?")
    found = client.responses.input_tokens.count(model="m", input="two?", previous_response_id=first.id)
    assert (found.object, found.input_tokens) == ("response.input_tokens", 7)
    seen = stub.asked[-1].body
    assert (seen["max_completion_tokens"], "stream" in seen) == (1, False)
    assert [message["content"] for message in seen["messages"]] == ["one?", TEXT, "two?"]
    assert relay.report().counters.requests[("/v1/responses/input_tokens", 200)] == 1
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.input_tokens.count(model="m", input="two?", conversation="c")
    assert caught.value.param == "conversation"


def test_a_conversation_has_all_that_was_before(relay, client):
    stub = relay.add("w-0")
    first = whole(client, input="one?", instructions="Not carried over.")
    second = streamed(client, input="two?", previous_response_id=first.id)
    whole(client, input="three?", previous_response_id=second.id)
    assert [message["content"] for message in stub.asked[-1].body["messages"]] == ["one?", TEXT, "two?", TEXT, "three?"]


def test_items_are_referred_to_by_their_ids(relay, client):
    stub = relay.add("w-0")
    first = whole(client, input="one?")
    reference = {"type": "item_reference", "id": first.output[0].id}
    second = whole(client, input=[{"role": "user", "content": "one?"}, reference, {"role": "user", "content": "two?"}])
    assert [message["content"] for message in stub.asked[-1].body["messages"]] == ["one?", TEXT, "two?"]
    both = [{"id": item.id} for item in (first.output[0], second.output[0])]
    whole(client, input=[both[0], {"role": "user", "content": "two?"}, both[1], {"role": "user", "content": "three?"}])
    assert [message["content"] for message in stub.asked[-1].body["messages"]] == [TEXT, "two?", TEXT, "three?"]
    with pytest.raises(openai.BadRequestError, match="not found") as caught:
        whole(client, input=[{"type": "item_reference", "id": "msg_" + "0" * 36}])
    assert caught.value.param == "input"


def test_what_is_not_kept_cannot_be_gone_on_with(relay, client, client_of):
    stub = relay.add("w-0")
    relay.add_tenant("other", name="two")
    unkept, kept_one = whole(client, store=False), whole(client)
    assert unkept.store is False
    asked = len(stub.asked)
    for who, id in ((client, unkept.id), (client, "resp_1"), (client_of(relay, "other"), kept_one.id)):
        with pytest.raises(openai.BadRequestError, match="not found") as caught:
            whole(who, previous_response_id=id)
        assert (caught.value.param, caught.value.code) == ("previous_response_id", "previous_response_not_found")
    assert len(stub.asked) == asked
    assert whole(client, previous_response_id=kept_one.id).output_text == TEXT


def test_the_rows_of_a_batch_are_not_kept(relay, client):
    relay.add("w-0")
    relay.add_tenant("other", name="two")
    row = whole(client, extra_headers={"X-Slurminfer-On-Behalf-Of": "two"})
    with pytest.raises(openai.BadRequestError, match="not found"):
        whole(client, previous_response_id=row.id)


def test_a_deployment_that_keeps_nothing_says_so(relayed, client_of):
    relay = relayed(keep_responses=0)
    relay.add("w-0")
    client = client_of(relay)
    with pytest.raises(openai.BadRequestError, match="keep_responses = 0"):
        whole(client, previous_response_id=whole(client).id)


@pytest.mark.parametrize("ask", [whole, streamed])
def test_a_full_disk_costs_no_answer(relay, client, ask, caplog):
    relay.add("w-0")
    folder = relay.folder / "responses"
    folder.mkdir(mode=0o700)
    with small_disk_at(folder, "4k", "700"):
        response = ask(client, input="long " * 5000)
        assert response.output_text == TEXT
        assert response.store is False, "the client sees that it cannot go on with it"
        with pytest.raises(openai.BadRequestError, match="not kept"):
            ask(client, previous_response_id=response.id)
    assert "No space left" in caplog.text
    assert ask(client).store is True
    counters = relay.report().counters
    assert (counters.responses_not_kept, counters.responses_kept) == ({"no_space": 1}, 1)


def test_why_a_response_is_not_kept_is_said(relayed, client_of):
    relay = relayed(keep_responses=0)
    relay.add("w-0")
    raw = client_of(relay).responses.with_raw_response.create(**ASKED)
    assert raw.headers["X-Slurminfer-Not-Kept"] == "this deployment keeps no responses"
    assert raw.parse().store is False
    answer = relay.http.post("/v1/responses", json={**ASKED, "stream": True})
    *_, item, comment, last = answer.text.removesuffix("\n\n").split("\n\n")
    assert comment == ": not kept: this deployment keeps no responses"
    item, last = (json.loads(event.partition("\ndata: ")[2]) for event in (item, last))
    assert (last["type"], last["response"]["store"]) == ("response.completed", False)
    assert last["sequence_number"] == item["sequence_number"] + 1


def test_each_turn_is_kept_once(relay, client):
    relay.add("w-0")
    words, id = "a turn of some length " * 50, None
    for _ in range(20):
        id = whole(client, input=words, previous_response_id=id).id
    files = list(relay.folder.rglob("responses/*/*.json"))
    assert len(files) == 20
    assert max(file.stat().st_size for file in files) < len(words) + 2000
    assert relay.report().counters.responses_kept_bytes < 20 * (len(words) + 2000)


def test_a_conversation_as_a_whole_is_bounded(relay, client, monkeypatch):
    relay.add("w-0")
    monkeypatch.setattr(kept, "MOST_RECORD_BYTES", 20_000)
    first = whole(client, input="x" * 8000)
    second = whole(client, input="x" * 8000, previous_response_id=first.id)
    third = whole(client, input="x" * 8000, previous_response_id=second.id)
    assert [one.store for one in (first, second, third)] == [True, True, False]
    assert relay.report().counters.responses_not_kept == {"too_large": 1}


def test_a_tenant_that_writes_much_leaves_room_for_others(relay, client, client_of, monkeypatch):
    relay.add("w-0")
    relay.add_tenant("other", name="two")
    stands, real = threading.Event(), ResponseStore.keep

    def keep(self, record, before):
        if record.tenant == "one":
            stands.wait()
        return real(self, record, before)

    monkeypatch.setattr(kept, "_WRITE_S", 0.01)
    monkeypatch.setattr(kept, "_MOST_OF_TENANT", 2)
    monkeypatch.setattr(kept, "_MOST_AT_ONCE", 3)
    monkeypatch.setattr(ResponseStore, "keep", keep)
    assert [whole(client).store for _ in range(4)] == [False] * 4
    assert relay.report().counters.responses_not_kept == {"slow": 2, "busy": 2}
    monkeypatch.setattr(kept, "_WRITE_S", 5)
    other = client_of(relay, "other")
    assert whole(other, previous_response_id=whole(other).id).output_text == TEXT
    stands.set()


def test_conversations_in_flight_count_as_bodies(relay, client, monkeypatch, eventually):
    """A few bytes may stand for a long conversation: memory is bounded by what is in flight, not by what was sent."""
    relay.add("w-0")
    first = whole(client, input="x" * 100_000)
    bodies = relay.server._server._state.bodies
    monkeypatch.setattr(bodies, "limits", dataclasses.replace(bodies.limits, together=150_000))
    monkeypatch.setattr(bodies, "_crowded", 1)
    with pytest.raises(openai.InternalServerError, match="send this one again later") as caught:
        whole(client, previous_response_id=first.id)
    assert caught.value.status_code == 503
    eventually(lambda: bodies.held == 0)
    monkeypatch.setattr(bodies, "limits", dataclasses.replace(bodies.limits, together=300_000))
    assert whole(client, previous_response_id=first.id).output_text == TEXT
    eventually(lambda: bodies.held == 0)


def fabricated(relay, befores):
    """The ids of responses that lie there as the router writes them. `befores`: the number of the one before."""
    ids: list[str] = []
    folder = None
    for number, before in enumerate(befores):
        previous = "" if before is None else ids[before]
        ids.append(new_id("one", time.time() - 1 + number * 1e-5, parsed(previous)))
        said = {"id": ids[-1], "output": [{"type": "message", "role": "assistant", "content": "said"}]}
        item = {"type": "message", "role": "user", "content": f"turn {number}"}
        response, asked = (Raw(json.dumps(one).encode()) for one in (said, [item]))
        record = Record(id=ids[-1], tenant="one", response=response, input=asked, previous=previous)
        if folder is None:
            folder = relay.folder / "responses" / required(ids[-1]).mark
            folder.mkdir(0o700, parents=True)
        path = folder / f"{ids[-1]}.json"
        path.touch(0o600)
        path.write_bytes(msgspec.json.encode(record))
    return ids


def test_ten_thousand_turns(relay, client):
    """A conversation that is too long is refused, whoever has made it, and one that is just not is not."""
    stub = relay.add("w-0")
    ids = fabricated(relay, [None, *range(9999)])
    with pytest.raises(openai.BadRequestError, match="at most 8192") as caught:
        whole(client, previous_response_id=ids[-1])
    assert caught.value.param == "previous_response_id"
    assert whole(client, previous_response_id=ids[4000]).output_text == TEXT
    assert len(stub.asked[-1].body["messages"]) == 2 * 4001 + 1
    assert whole(client).output_text == TEXT


@pytest.mark.parametrize("how", ["gone", "garbage", "itself"])
def test_a_turn_that_is_missing_is_said(relay, client, how, caplog):
    stub = relay.add("w-0")
    ids = fabricated(relay, [None, 0, 1])
    (file,) = relay.folder.rglob(f"responses/*/{ids[1]}.json")
    record = json.loads(file.read_text())
    if how == "gone":
        file.unlink()
    else:
        file.write_text("garbage" if how == "garbage" else json.dumps({**record, "previous": ids[2]}))
    with pytest.raises(openai.BadRequestError, match="is missing" if how != "itself" else "not found") as caught:
        whole(client, previous_response_id=ids[2])
    assert caught.value.code == "previous_response_not_found"
    assert ("cannot be used" in caplog.text) == (how == "garbage")
    assert not stub.asked


@pytest.mark.parametrize(
    "id",
    ["resp_1/../../key", "resp_\0", "resp_" + "a" * 10_240, "..", "resp_" + "0" * 47 + "\u0660", "\ud800", "resp_ ",
     "%2e%2e", "resp_" + "0" * 48 + "\n"],
)  # fmt: skip
def test_any_id(relay, id):
    relay.add("w-0")
    body = json.dumps({**ASKED, "previous_response_id": id})
    answer = relay.http.post("/v1/responses", content=body)
    assert answer.status_code == 400 and len(answer.content) < 1000
    if id != "\ud800":  # which is no text
        assert answer.json()["error"]["code"] == "previous_response_not_found"
    reference = json.dumps({**ASKED, "input": [{"type": "item_reference", "id": id}]})
    assert relay.http.post("/v1/responses", content=reference).status_code == 400


@pytest.mark.parametrize("ask", [whole, streamed])
def test_a_filesystem_that_stands_still_costs_no_answer(relay, client, ask, monkeypatch):
    relay.add("w-0")
    stands, real = threading.Event(), ResponseStore.keep
    monkeypatch.setattr(kept, "_WRITE_S", 0.01)
    monkeypatch.setattr(kept, "_READ_S", 0.01)
    monkeypatch.setattr(ResponseStore, "keep", lambda self, *given: stands.wait() and real(self, *given))
    monkeypatch.setattr(ResponseStore, "get", lambda self, tenant, id: stands.wait())
    response = ask(client)
    assert response.output_text == TEXT
    with pytest.raises(openai.InternalServerError, match="cannot be read now") as caught:
        ask(client, previous_response_id=response.id)
    assert caught.value.status_code == 503
    stands.set()


def test_so_many_are_kept_at_once(relay, client, monkeypatch, eventually):
    relay.add("w-0")
    stands, started, real = threading.Event(), [], ResponseStore.keep

    def keep(self, record, before):
        started.append(record.id)
        stands.wait()
        return real(self, record, before)

    monkeypatch.setattr(kept, "_WRITE_S", 0.01)
    monkeypatch.setattr(kept, "_MOST_AT_ONCE", 3)
    monkeypatch.setattr(ResponseStore, "keep", keep)
    ids = [whole(client).id for _ in range(6)]
    assert started == ids[:3]
    stands.set()
    eventually(lambda: is_kept(client, ids[0]))
    assert not is_kept(client, ids[3])


def test_of_too_many_the_oldest_are_removed(relay, client, monkeypatch, eventually):
    relay.add("w-0")
    monkeypatch.setattr(store, "_WRITES_PER_LOOK", 1)
    relay.server._surfaces._surfaces["/v1/responses"]._kept._store._limits = Limits(seconds=3600, of_tenant=10)
    ids = [whole(client).id for _ in range(30)]
    eventually(lambda: len(list(relay.folder.rglob("responses/*/*.json"))) <= 10)
    assert is_kept(client, ids[-1]) and not is_kept(client, ids[0])


def test_a_stream_goes_on_when_its_worker_is_lost(relay, client):
    async def die_once(asked):
        is_first = sum(len(stub.asked) for stub in relay.stubs) == 1
        await asked.answer(words=3 if is_first else None)
        if is_first:
            asked.cut()

    stubs = [relay.add("w-0", die_once), relay.add("w-1", die_once)]
    events = list(client.responses.create(**ASKED, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events].count("response.created") == 1
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == TEXT
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[-1].response.usage.output_tokens == 6
    assert [len(stub.asked) for stub in stubs] == [1, 1]


def test_a_stream_that_nobody_can_go_on_with_fails_loudly(relay, client):
    async def die(asked):
        await asked.answer(words=3)
        asked.cut()

    relay.add("w-0", die)
    seen = []
    with pytest.raises(openai.APIError):
        for one in client.responses.create(**ASKED, stream=True):
            seen.append(one)
    assert seen[-1].type == "response.output_text.delta"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"background": True}, "background", "batch API"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'web_search'"),
        ({"extra_body": {"max_tokens": 5}}, "max_tokens", "use max_output_tokens"),
    ],
)
def test_what_is_not_taken_is_refused_by_name(relay, client, fields, param, words):
    stub = relay.add("w-0")
    with pytest.raises(openai.BadRequestError) as caught:
        whole(client, **fields)
    assert caught.value.param == param and words in caught.value.message
    assert not stub.asked
    assert relay.report().counters.requests == {("/v1/responses", 400): 1}


@pytest.mark.parametrize(
    ("param", "message", "shown_param", "shown"),
    [
        ("max_completion_tokens", "max_tokens = 9: too many", "max_output_tokens", "max_output_tokens = 9: too many"),
        ("messages[1].content", "messages[1].content: no images", "input", "input: no images"),
        ("messages", "messages have too many parts", "input", "messages have too many parts"),
        ("reasoning_effort", "reasoning_effort = 'x'", "reasoning.effort", "reasoning.effort = 'x'"),
        ("response_format.json_schema.schema", "bad response_format", "text.format.schema", "bad text.format"),
        ("tools[0].function.parameters", "tools[0].function.parameters: bad", "tools[0].parameters",
         "tools[0].parameters: bad"),
        ("temperature", "temperature = 9", "temperature", "temperature = 9"),
        (None, "no", None, "no"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ask", [whole, streamed])
def test_errors_of_engines_name_this_apis_fields(relay, client, ask, param, message, shown_param, shown):
    async def refuse(asked):
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
        await asked.whole({"error": error}, 400)

    relay.add("w-0", refuse)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client)
    assert caught.value.body == {"message": shown, "type": "invalid_request_error", "param": shown_param, "code": None}


def test_an_api_that_is_not_translated_goes_to_the_engine(relayed, client_of):
    relay = relayed(translate=("messages",))
    stub = relay.add("w-0")
    client_of(relay).responses.with_raw_response.create(**ASKED)
    assert stub.asked[-1].target == "/v1/responses"
    assert stub.asked[-1].body == ASKED


def test_a_client_that_hangs_up_while_kept_responses_are_read(relay, client, monkeypatch, eventually):
    stub = relay.add("w-0")
    stands, started = threading.Event(), []

    def get(self, tenant, id):
        started.append(id)
        stands.wait()

    monkeypatch.setattr(ResponseStore, "get", get)
    body = json.dumps({**ASKED, "previous_response_id": "resp_" + "0" * 32}).encode()
    head = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(relay.address) as sock:
        sock.sendall(head % len(body) + body)
        eventually(lambda: started)
    eventually(lambda: not relay.server._surfaces._waiting)
    stands.set()
    assert whole(client).output_text == TEXT
    assert len(stub.asked) == 1


def test_a_defect_is_answered(relay, client, monkeypatch, caplog):
    relay.add("w-0")
    monkeypatch.setattr(ResponseStore, "get", lambda self, tenant, id: 1 / 0)
    with pytest.raises(openai.InternalServerError) as caught:
        whole(client, previous_response_id="resp_1")
    assert caught.value.status_code == 500
    assert "ZeroDivisionError" in caplog.text


def test_a_client_that_hangs_up_in_the_middle_of_a_stream_has_no_response(relay, client, eventually):
    """As with OpenAI: what was not in the background ends with its client, and nothing half is kept."""

    async def half(asked):
        await asked.answer(words=3)
        await asked.forever()

    stub = relay.add("w-0", half)
    with client.responses.create(**ASKED, stream=True) as stream:
        id = next(iter(stream)).response.id
    eventually(lambda: stub.aborted)
    eventually(relay.is_idle)
    with pytest.raises(openai.BadRequestError, match="not found"):
        whole(client, previous_response_id=id)
    counters = relay.report().counters
    assert (counters.responses_kept, counters.responses_not_kept) == (0, {})
    assert list(relay.folder.rglob("responses/*/*")) == []


def test_a_client_that_hangs_up_while_a_response_is_kept(relay, client, monkeypatch, eventually):
    relay.add("w-0")
    stands, kept_ids, real = threading.Event(), [], ResponseStore.keep

    def keep(self, record, before):
        kept_ids.append(record.id)
        stands.wait()
        return real(self, record, before)

    monkeypatch.setattr(ResponseStore, "keep", keep)
    with client.responses.create(**ASKED, stream=True) as stream:
        next(iter(stream))
        eventually(lambda: kept_ids)
    stands.set()
    eventually(lambda: is_kept(client, kept_ids[0]))
    assert relay.is_idle()
