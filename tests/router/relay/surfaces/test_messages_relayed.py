"""Anthropic's API through a relay, by Anthropic's own client, before stub workers that play chat completions."""

import json
import socket
from contextlib import ExitStack

import anthropic
import pytest

from slurminfer.router.relay.surfaces.messages.asked import MOST_BYTES

from ..relayed import DONE, HEAD, LAST, TEXT, chunk, event, usage_event

HI = [{"role": "user", "content": "Hi"}]
ASKED = {"model": "m", "max_tokens": 50, "messages": HI}


@pytest.fixture
def client_of(relay):
    """Makes clients with a key."""
    host, port = relay.address
    with ExitStack() as stack:
        yield lambda key: stack.enter_context(
            anthropic.Anthropic(base_url=f"http://{host}:{port}", api_key=key, max_retries=0)
        )


@pytest.fixture
def client(client_of):
    return client_of("key")


def whole(client, **fields):
    return client.messages.create(**{**ASKED, **fields})


def streamed(client, **fields):
    with client.messages.stream(**{**ASKED, **fields}) as stream:
        return stream.get_final_message()


@pytest.mark.parametrize("asked", [whole, streamed])
def test_a_message(relay, client, asked):
    stub = relay.add("w-0")
    message = asked(client, system="Be kind.")
    assert [block.text for block in message.content] == [TEXT]
    assert (message.role, message.model, message.stop_reason) == ("assistant", "m", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 6)
    seen = stub.asked[-1]
    assert seen.target == "/v1/chat/completions"
    assert seen.body["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]


def test_a_stream_goes_on_when_its_worker_is_lost(relay, client):
    async def die_once(asked):
        is_first = sum(len(stub.asked) for stub in relay.stubs) == 1
        await asked.answer(words=3 if is_first else None)
        if is_first:
            asked.cut()

    stubs = [relay.add("w-0", die_once), relay.add("w-1", die_once)]
    message = streamed(client)
    assert [block.text for block in message.content] == [TEXT]
    assert message.usage.output_tokens == 6
    assert [len(stub.asked) for stub in stubs] == [1, 1]


def test_what_a_request_counts_as(relay, client):
    relay.add("w-0")
    whole(client)
    counters = relay.report().counters
    assert counters.requests == {("/v1/messages", 200): 1}
    assert list(counters.duration) == ["/v1/messages"]
    assert relay.report().usage["one"].generated_tokens == 6


def test_an_answer_says_its_id(relay, client):
    relay.add("w-0")
    message = whole(client, extra_headers={"X-Request-Id": "abc"})
    assert (message.id, message._request_id) == ("msg_abc", "abc")


def refused(kind, ask, *arguments, **fields):
    """The error of a request that is refused with this exception of the client."""
    with pytest.raises(kind) as error:
        ask(*arguments, **fields)
    body = error.value.body
    assert body["type"] == "error"
    assert body["request_id"] == error.value.response.headers["request-id"]
    return body["error"]


@pytest.mark.parametrize("asked", [whole, streamed])
def test_errors_of_the_relay_have_the_types_of_the_client(relay, client, client_of, asked):
    assert refused(anthropic.InternalServerError, asked, client)["type"] == "overloaded_error"
    relay.add("w-0")
    wrong = refused(anthropic.AuthenticationError, asked, client_of("wrong"))
    assert wrong["type"] == "authentication_error" and "wrong API key" in wrong["message"]
    unknown = refused(anthropic.NotFoundError, asked, client, model="other")
    assert unknown["type"] == "not_found_error" and "valid models: m, n" in unknown["message"]
    assert refused(anthropic.BadRequestError, asked, client, messages=[])["type"] == "invalid_request_error"
    counted = relay.report().counters.requests
    assert counted == {("/v1/messages", status): 1 for status in (400, 404, 503)}, "without a key nothing is counted"


def test_a_tenant_that_asks_too_often(relay, client_of):
    relay.add("w-0")
    relay.add_tenant("b", name="bob", requests_per_minute=1)
    bob = client_of("b")
    whole(bob)
    assert refused(anthropic.RateLimitError, whole, bob)["type"] == "rate_limit_error"


@pytest.mark.parametrize(
    ("headers", "content", "status", "kind"),
    [
        ({}, b"{", 400, "invalid_request_error"),
        ({}, b'{"messages": [{"role": "user", "content": "Hi"}]}', 400, "invalid_request_error"),
        ({}, b" " * (MOST_BYTES + 1), 413, "request_too_large"),
        ({"Content-Encoding": "rot13"}, b"x", 415, "invalid_request_error"),
        ({"X-Priority": "now"}, b'{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}', 400, None),
    ],
)
def test_what_is_wrong_with_a_request_is_said_in_the_same_shape(relay, headers, content, status, kind):
    relay.add("w-0")
    answer = relay.http.post("/v1/messages", content=content, headers=headers)
    error = answer.json()
    assert (answer.status_code, error["type"]) == (status, "error")
    assert error["error"]["type"] == kind or kind is None
    assert error["request_id"] == answer.headers["request-id"]
    assert relay.stubs[0].asked == []


def test_a_request_that_is_refused_before_it_has_come(relay):
    head = "POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Length: 999999999999\r\n\r\n"
    with socket.create_connection(relay.address, timeout=20) as connection:
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert b'{"type":"error","error":{"type":"request_too_large","message":' in answer


def test_errors_of_engines(relay, client):
    async def refuse(asked):
        words = "This model's maximum context length is 8 tokens. However, your request has 9 input tokens."
        await asked.whole({"object": "error", "message": words, "type": "BadRequestError", "code": 400}, 400)

    relay.add("w-0", refuse)
    for ask in (whole, streamed, lambda client: client.messages.count_tokens(model="m", messages=HI)):
        assert refused(anthropic.BadRequestError, ask, client)["message"] == "prompt is too long: 9 tokens > 8 maximum"


def test_other_paths_of_the_api_do_not_exist(relay, client):
    async def unknown(asked):
        await asked.whole({"detail": "Not Found"}, 404)

    relay.add("w-0", unknown)
    error = refused(anthropic.NotFoundError, client.messages.batches.create, requests=[])
    assert error["message"].startswith("POST /v1/messages/batches: no such path; ")


@pytest.mark.parametrize("answer", [{"object": "x"}, {"choices": []}, b"[]", b"{"])
def test_an_answer_of_no_known_form(relay, client, answer):
    async def strange(asked):
        await asked.whole(answer)

    relay.add("w-0", strange)
    assert refused(anthropic.InternalServerError, whole, client)["type"] in ("api_error", "overloaded_error")


def test_a_stream_that_nobody_can_go_on_with_ends_with_an_error_event(relay, client):
    async def die(asked):
        await asked.answer(words=2)
        asked.cut()

    relay.add("w-0", die)
    assert refused(anthropic.APIStatusError, streamed, client)["type"] == "api_error"


def test_an_error_event_of_an_engine_ends_the_stream_as_one_of_this_api(relay):
    async def fail(asked):
        event_of_error = b'data: {"error": {"message": "no memory", "type": "server_error", "code": 500}}\n\n'
        await asked.send(HEAD, chunk(event("one")), chunk(event_of_error), LAST)

    relay.add("w-0", fail)
    answer = relay.http.post("/v1/messages", json={**ASKED, "stream": True})
    *_, last = answer.text.strip().split("\n\n")
    assert last.startswith("event: error\ndata: ") and '"type":"api_error","message":"no memory"' in last
    assert "message_stop" not in answer.text


def test_comments_of_an_engine_keep_the_stream_alive_as_pings(relay):
    async def wait(asked):
        await asked.send(HEAD, chunk(b": the answer is on its way\n\n"))
        await asked.send(chunk(event("one", "stop")), chunk(usage_event(7, 1)), chunk(DONE), LAST)

    relay.add("w-0", wait)
    answer = relay.http.post("/v1/messages", json={**ASKED, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    names = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    assert names == [
        "ping", "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip


def test_a_very_long_answer_that_is_not_streamed(relay, client):
    async def long(asked):
        choice = {"index": 0, "message": {"role": "assistant", "content": "x" * 9_000_000}, "finish_reason": "stop"}
        await asked.whole({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 9}})

    relay.add("w-0", long)
    assert len(whole(client).content[0].text) == 9_000_000


def test_a_client_that_hangs_up_ends_its_request(relay, eventually):
    async def slow(asked):
        await asked.send(HEAD, chunk(event("one")))
        await asked.forever()

    stub = relay.add("w-0", slow)
    with relay.http.stream("POST", "/v1/messages", json={**ASKED, "stream": True}) as answer:
        next(answer.iter_bytes())
    eventually(lambda: stub.aborted == 1)
    eventually(lambda: relay.report().counters.requests.get(("/v1/messages", 499)) == 1)


def test_tools_go_there_and_back(relay, client):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    function = {"name": "weather", "arguments": '{"city": "Oslo"}'}

    async def call(asked):
        """A script, as no model here can be relied on to call tools."""
        if asked.body["messages"][-1]["role"] == "tool":
            said = {"role": "assistant", "content": "It is " + asked.body["messages"][-1]["content"]}
            await asked.whole({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]})
            return
        assert asked.body["tools"][0]["function"]["parameters"] == schema
        said = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        }
        await asked.whole({"choices": [{"index": 0, "message": said, "finish_reason": "tool_calls"}]})

    relay.add("w-0", call)
    tools = [{"name": "weather", "description": "The weather.", "input_schema": schema}]
    first = whole(client, tools=tools)
    (use,) = first.content
    assert (use.name, use.input, first.stop_reason) == ("weather", {"city": "Oslo"}, "tool_use")
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "cold"}
    messages = [
        *HI,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    assert whole(client, tools=tools, messages=messages).content[0].text == "It is cold"


def test_engines_may_be_asked_in_their_own_api(relayed):
    async def own(asked):
        await asked.whole({"type": "message", "content": [], "usage": {"input_tokens": 2, "output_tokens": 1}})

    passing = relayed(translate=())
    stub = passing.add("w-0", own)
    assert passing.http.post("/v1/messages?beta=true", json=ASKED).json()["type"] == "message"
    assert (stub.asked[0].target, stub.asked[0].body) == ("/v1/messages?beta=true", ASKED)
    refused = passing.http.post("/v1/messages", json={**ASKED, "model": "other"}).json()
    assert refused["error"]["type"] == "not_found_error"


def test_all_tokens_of_an_engines_own_stream_count(relayed):
    """It tells those of the prompt at its beginning, and those of the answer at its end."""

    def said(kind, **fields):
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()

    async def own(asked):
        usage = {"input_tokens": 20, "cache_read_input_tokens": 5, "output_tokens": 1}
        start = said("message_start", message={"id": "msg_1", "usage": usage})
        words = [said("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in "abcdef"]
        end = said("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 6})
        await asked.send(HEAD, *map(chunk, [start, *words, end, said("message_stop")]), LAST)

    passing = relayed(translate=())
    passing.add("w-0", own)
    assert passing.http.post("/v1/messages", json={**ASKED, "stream": True}).text.endswith('"message_stop"}\n\n')
    usage = passing.report().usage["one"]
    assert (usage.prompt_tokens, usage.cached_tokens, usage.generated_tokens) == (25, 5, 6)


def test_a_tool_call_goes_on_when_its_worker_is_lost(relay, client):
    """A script, as in the test above. The native engine goes on from the tokens that have come."""
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    parts = [first, *({"index": 0, "function": {"arguments": piece}} for piece in ('{"city"', ': "Os', 'lo"}'))]

    async def call(asked):
        begin = len(asked.body.get("continue_token_ids", ()))
        await asked.send(HEAD)
        for token, part in enumerate(parts[begin:], begin):
            choice = {"index": 0, "delta": {"tool_calls": [part]}, "finish_reason": None, "token_ids": [token]}
            data = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
            await asked.send(chunk(b"data: " + json.dumps(data).encode() + b"\n\n"))
            if begin == 0 and token == 2:
                asked.cut()
        await asked.send(chunk(event(None, "tool_calls")), chunk(usage_event(7, len(parts))), chunk(DONE), LAST)

    stubs = [relay.add(name, call, engine="native") for name in ("w-0", "w-1")]
    message = streamed(client, tools=[{"name": "weather", "input_schema": {"type": "object"}}])
    (use,) = message.content
    assert (use.id, use.name, use.input, message.stop_reason) == ("c1", "weather", {"city": "Oslo"}, "tool_use")
    assert [len(stub.asked) for stub in stubs] == [1, 1], "both had a part in it"


def test_a_large_request_is_translated_beside_the_others(relay, client):
    stub = relay.add("w-0")
    words = [{"type": "text", "text": "word " * 100}] * 1000
    message = whole(client, messages=[{"role": "user", "content": words}])
    assert message.content[0].text == TEXT
    assert len(stub.asked[-1].body["messages"][0]["content"]) == 1000 * 501 - 1
    bad = [*words, {"type": "audio"}]
    error = refused(anthropic.BadRequestError, whole, client, messages=[{"role": "user", "content": bad}])
    assert error["message"].startswith("messages.0.content.1000.type: 'audio'")
