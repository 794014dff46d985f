"""Requests of Anthropic's API as chat requests."""

import asyncio
import json
from collections.abc import Coroutine

import pytest

from slurminfer.core.background.fair_threads import FairThreads
from slurminfer.router.http.messages import Head
from slurminfer.router.relay.surfaces.messages.asked import MOST_BYTES, read
from slurminfer.router.relay.surfaces.messages.request import chat_request
from slurminfer.router.relay.surfaces.messages.surface import CountTokens, Messages
from slurminfer.router.relay.surfaces.translation import TranslationError

from ..relayed import tenant

HI = [{"role": "user", "content": "Hi"}]
CALL = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": [1, 2.50, "é"]}}


def chat(**fields):
    """The chat request for these fields."""
    return json.loads(
        chat_request(read(json.dumps({"model": "m", "max_tokens": 9, "messages": HI, **fields}).encode()))
    )


def turns(*messages, **fields):
    return chat(messages=list(messages), **fields)["messages"]


def user(*content):
    return {
        "role": "user",
        "content": content[0] if len(content) == 1 and isinstance(content[0], str) else list(content),
    }


def assistant(*content):
    return {**user(*content), "role": "assistant"}


def text(words, **more):
    return {"type": "text", "text": words, **more}


def result(id_, content, **more):
    return {"type": "tool_result", "tool_use_id": id_, "content": content, **more}


def nested(kind, depth):
    """A block in a block, and so on."""
    block = text("x")
    for _ in range(depth):
        block = {"type": kind, "content": [block]}
    return block


@pytest.mark.parametrize("surface", [Messages(FairThreads()), CountTokens(FairThreads(), lambda model: ["native"])])
def test_others_do_not_wait_for_the_translation_of_a_large_request(surface):
    head = Head(b"POST", b"/", "/", [], {}, "", "abc", tenant("key", name="one", slot=0))
    small, large = (json.dumps({"max_tokens": 9, "messages": [user("x" * size)]}).encode() for size in (9, 300_000))
    assert not isinstance(surface.translate(head, small), Coroutine)
    beside = surface.translate(head, large)
    assert isinstance(beside, Coroutine)
    assert json.loads(asyncio.run(beside).body)["messages"] == [user("x" * 300_000)]


def test_the_least_request():
    assert chat() == {"model": "m", "max_tokens": 9, "messages": HI}


def test_fields_of_the_same_meaning():
    asked = chat(
        temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["a", "b"], metadata={"user_id": "u"}, stream=True
    )
    assert asked == {
        "model": "m", "max_tokens": 9, "messages": HI, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "user": "u",
        "stop": ["a", "b"], "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_fields_that_change_nothing_are_left_out():
    asked = chat(
        context_management={"edits": []}, service_tier="auto", betas=["x"], cache_control={"type": "ephemeral"},
        never_heard_of={"a": 1}, stop_sequences=[], tools=[], tool_choice={"type": "auto"}, stream=False,
    )  # fmt: skip
    assert asked == chat()


def test_the_system_prompt():
    cached = {"cache_control": {"type": "ephemeral"}}
    billing = text("x-anthropic-billing-header: cc_version=2; cch=abc;")
    assert turns(user("Hi"), system="One.") == [{"role": "system", "content": "One."}, *HI]
    blocks = [billing, text("One.", **cached), text("Two.")]
    assert turns(user("Hi"), system=blocks) == [{"role": "system", "content": "One.\nTwo."}, *HI]


def test_instructions_in_mid_conversation_are_words_of_the_user():
    messages = turns(user("Hi"), {"role": "system", "content": "Hurry."}, assistant("Yes?"), user("Go"))
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[0]["content"] == "Hi\n<system-reminder>\nHurry.\n</system-reminder>"


def test_neighbours_of_one_role_are_one_turn():
    assert turns(user("a"), user(text("b"), text("c")), assistant("d"), assistant("e"), user("f")) == [
        {"role": "user", "content": "a\nb\nc"},
        {"role": "assistant", "content": "d\ne"},
        {"role": "user", "content": "f"},
    ]


def test_calls_and_results_of_tools():
    messages = turns(
        user("Go"),
        assistant(
            {"type": "thinking", "thinking": "hm", "signature": "x"}, text("Looking."), CALL, {**CALL, "id": "t2"}
        ),
        user(result("t1", "fine"), result("t2", [text("a"), text("b")], is_error=True), text("Well?")),
    )
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at": [1, 2.5, "\\u00e9"]}'}}
    assert messages == [
        {"role": "user", "content": "Go"},
        {
            "role": "assistant",
            "content": "Looking.",
            "reasoning_content": "hm",
            "tool_calls": [call, {**call, "id": "t2"}],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "fine"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: a\nb"},
        {"role": "user", "content": "Well?"},
    ]


def test_text_before_a_result_stays_before_it():
    messages = turns(user("Go"), assistant(CALL), user(text("Here:"), result("t1", "fine")))
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "tool"]


def test_a_call_without_input_has_no_arguments():
    for empty in (json.loads("{}"), None):
        (_, said, _) = turns(user("Go"), assistant({**CALL, "input": empty}), user(result("t1", "x")))
        assert said["tool_calls"][0]["function"]["arguments"] == "{}"
        assert said["content"] is None


def test_images_documents_and_search_results():
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}}
    url = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    parts = [{"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}}]
    assert turns(user(text("See"), image))[0]["content"] == [{"type": "text", "text": "See"}, *parts]
    assert turns(user(url))[0]["content"][0]["image_url"]["url"] == "https://example.org/a.png"
    document = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "D"}}
    assert turns(user(document, text("Q")))[0]["content"] == "T\nD\nQ"
    found = {"type": "search_result", "title": "T", "source": "https://example.org", "content": [text("F")]}
    assert turns(user(found))[0]["content"] == "T\nhttps://example.org\nF"
    seen = turns(user("Go"), assistant(CALL), user(result("t1", [text("a"), image]), result("t2", "b"), text("Well?")))
    assert [message["role"] for message in seen[2:]] == ["tool", "tool", "user"]
    assert seen[-1]["content"] == [*parts, {"type": "text", "text": "Well?"}]


def test_tools():
    schema = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
    tool = {"name": "look", "description": "Looks.", "input_schema": schema, "cache_control": {"type": "ephemeral"}}
    function = {"name": "look", "description": "Looks.", "parameters": schema}
    assert chat(tools=[tool])["tools"] == [{"type": "function", "function": function}]
    choices = {"auto": None, "any": "required", "none": "none"}
    for theirs, ours in choices.items():
        assert chat(tools=[tool], tool_choice={"type": theirs}).get("tool_choice") == ours
    asked = chat(tools=[tool], tool_choice={"type": "tool", "name": "look", "disable_parallel_tool_use": True})
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert asked["parallel_tool_calls"] is False


def test_an_answer_that_has_been_begun_goes_on():
    asked = chat(messages=[*HI, {"role": "assistant", "content": "The answer is ("}])
    assert (asked["continue_final_message"], asked["add_generation_prompt"]) == (True, False)
    assert asked["messages"][-1] == {"role": "assistant", "content": "The answer is ("}


@pytest.mark.parametrize(("kind", "on"), [("enabled", True), ("adaptive", True), ("disabled", False)])
def test_thinking(kind, on):
    asked = chat(thinking={"type": kind, "budget_tokens": 1024}, output_config={"effort": "max"})
    assert asked["chat_template_kwargs"] == {"enable_thinking": on, "thinking": on, "reasoning_effort": "high"}
    assert "chat_template_kwargs" not in chat()


def test_sampling_fields_of_engines_are_passed_on():
    fields = {"seed": 5, "min_p": 0.1, "repetition_penalty": 1.1, "logit_bias": {"5": -100}, "ignore_eos": True}
    assert chat(**fields) == {**chat(), **fields}
    assert chat(response_format=None, stop=None) == chat()


@pytest.mark.parametrize("field", ["output_format", "output_config"])
def test_a_schema_for_the_answer(field):
    schema = {"type": "object", "properties": {}}
    form = {"type": "json_schema", "schema": schema}
    asked = chat(**{field: form if field == "output_format" else {"format": form}})
    wanted = {"name": "answer", "schema": schema, "strict": True}
    assert asked["response_format"] == {"type": "json_schema", "json_schema": wanted}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": []}, "messages: expected at least one message"),
        ({"messages": "Hi"}, "messages: expected a list, got a string"),
        ({"stop": ["a"]}, "stop: not a field of /v1/messages; use stop_sequences"),
        (
            {"response_format": {"type": "json_object"}},
            "response_format: not a field of /v1/messages; use output_config",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "x"}}]},
            "tools.0: this is a tool of OpenAI's API; expected",
        ),
        ({"tool_choice": "auto"}, "tool_choice: expected an object, got a string"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role: 'robot'"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content: expected"),
        ({"messages": [user({"type": "audio"})]}, "messages.0.content.0.type: 'audio' is not supported here"),
        ({"messages": [user({"type": "image"})]}, "messages.0.content.0.source: none: expected base64"),
        ({"messages": [user({"type": "document", "source": {"type": "base64", "data": "A"}})]}, "engines read no PDF"),
        ({"messages": [*HI, assistant({"type": "server_tool_use"})]}, "messages.1.content.0.type: 'server_tool_use'"),
        ({"messages": [*HI, assistant({"type": "tool_use", "name": "x"})]}, "must have an id and a name"),
        ({"messages": [user({"type": "tool_result", "content": "x"})]}, "messages.0.content.0.tool_use_id"),
        ({"messages": [user(result("t1", {"a": 1}))]}, "messages.0.content.0.content: expected"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type: 'web_search_20250305'"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name"),
        ({"tools": [{"name": "a"}], "tool_choice": {"type": "all"}}, "tool_choice.type: 'all'"),
        ({"tools": [{"name": "a"}], "tool_choice": {"type": "tool"}}, "tool_choice.type: 'tool'"),
        ({"thinking": {"type": "much"}}, "thinking.type: 'much': expected one of enabled"),
        ({"output_config": {"effort": "much"}}, "output_config.effort: 'much'"),
        ({"output_format": {"type": "xml"}}, "output_config.format: 'xml'"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"max_tokens": "many"}, "max_tokens: expected"),
        ({"messages": [user(result("t1", [result("t2", "x")]))]}, "'tool_result' is not supported here"),
        ({"messages": [user(nested("search_result", 200))]}, "'search_result' is not supported here"),
        ({"system": [{"type": "image"}]}, "system.type: 'image'"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(fields, words):
    with pytest.raises(TranslationError) as error:
        chat(**fields)
    assert words in error.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{", b'{"messages": [{"role": "user"}]}', b'{"messages": ' + b"[" * 100_000, b"\xff",
        b'{"messages": [{"role": "user", "content": "\\ud800"}], "max_tokens": ' + b"9" * 5000 + b"}",
        b'{"messages": [{"role":"user","content":[' + b"{}," * 1_000_000 + b"{}]}]}",
        b'{"a": [' + b"[]," * 1_000_001 + b"[]]}", b'{"a": "' + b"x" * MOST_BYTES + b'"}',
        b'{"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": '
        + b"[" * 50_000 + b"]" * 50_000 + b"}]}]}",
    ],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_what_is_no_request_is_refused(body):
    with pytest.raises(TranslationError):
        chat_request(read(body))


def test_strings_are_bounded():
    """Each takes sixty bytes in memory, however short it is."""
    body = json.dumps({"messages": HI, "max_tokens": 9, "stop_sequences": ["a"] * 500_001}).encode()
    with pytest.raises(TranslationError, match="too many strings"):
        read(body)
    code = json.dumps({"messages": [{"role": "user", "content": '"a",' * 2_000_000}], "max_tokens": 9}).encode()
    assert read(code).max_tokens == 9, "quotation marks within a text are no strings"


@pytest.mark.parametrize("name", ["mcp_servers", "container"])
def test_what_the_router_does_not_run_is_refused_unless_it_is_nothing(name):
    for nothing in ("null", "[]", "{}", '""'):
        assert chat(**{name: json.loads(nothing)})["messages"] == HI
    with pytest.raises(TranslationError, match=f"{name}: the router"):
        chat(**{name: [{"url": "x"}]})
