"""A request to /v1/responses becomes a chat request, or an error that names its field."""

import asyncio
import json
import typing
from collections.abc import Coroutine
from typing import Any

import pytest
from openai.types.responses import response_create_params

from slurminfer.core.background.fair_threads import FairThreads
from slurminfer.router.http.messages import Head
from slurminfer.router.relay.surfaces.responses.asked import read
from slurminfer.router.relay.surfaces.responses.count import InputTokens
from slurminfer.router.relay.surfaces.responses.fields import IGNORED, INCLUDABLE, OBEYED, REFUSED
from slurminfer.router.relay.surfaces.responses.kept import KeptResponses
from slurminfer.router.relay.surfaces.responses.surface import Responses
from slurminfer.router.relay.surfaces.translation import TranslationError

from ...relayed import tenant
from .chats import FUNCTION, chat

CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Ulm"}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "rain"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}


def test_every_field_of_the_sdk_is_in_one_table() -> None:
    known = set(typing.get_type_hints(response_create_params.ResponseCreateParamsStreaming))
    tables = [set(OBEYED), set(IGNORED), set(REFUSED)]
    assert known == set().union(*tables) - {"client_metadata"}  # of codex alone
    assert sum(map(len, tables)) == len(known) + 1


def test_every_includable_value_of_the_sdk_is_known() -> None:
    hints = typing.get_type_hints(response_create_params.ResponseCreateParamsBase)
    found = str(hints["include"])
    assert all(f"'{value}'" in found for value in INCLUDABLE)
    assert found.count("'") == 2 * len(INCLUDABLE)


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ("Hi", [{"role": "user", "content": "Hi"}]),
        ([{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Hi"}]),
        (
            [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"},
                                                             {"type": "input_text", "text": "b"}]}],
            [{"role": "user", "content": "a\nb"}],
        ),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": "What?"},
                                          {"type": "input_image", "image_url": "data:x", "detail": "low"}]}],
            [{"role": "user", "content": [{"type": "text", "text": "What?"},
                                          {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}]}],
        ),
        ([{"role": "developer", "content": "Be."}, {"role": "user", "content": "Hi"}],
         [{"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}]),
        (
            [{"role": "user", "content": "Hi"}, REASONING,
             {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
              "content": [{"type": "output_text", "text": "I", "annotations": []},
                          {"type": "output_text", "text": " look", "annotations": []}]},
             CALL, {**CALL, "call_id": "c2"}, OUTPUT, {**OUTPUT, "call_id": "c2"}],
            [{"role": "user", "content": "Hi"},
             {"role": "assistant", "reasoning_content": "Hm.", "content": "I look", "tool_calls": [
                 {"id": id, "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
                 for id in ("c1", "c2")]},
             {"role": "tool", "tool_call_id": "c1", "content": "rain"},
             {"role": "tool", "tool_call_id": "c2", "content": "rain"}],
        ),
        (
            [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
            [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
        ),
    ],
)  # fmt: skip
def test_input_becomes_messages(given: Any, messages: Any) -> None:
    assert chat(input=given)["messages"] == messages


def test_instructions_and_a_first_developer_message_are_one_system_message() -> None:
    given = [{"role": "developer", "content": "Be short."}, {"role": "user", "content": "Hi"}]
    messages = chat(input=given, instructions="Be kind.")["messages"]
    assert messages[0] == {"role": "system", "content": "Be kind.\n\nBe short."}
    assert [message["role"] for message in messages] == ["system", "user"]


def test_a_call_without_a_text_has_no_content() -> None:
    message = chat(input=[{"role": "user", "content": "?"}, CALL, OUTPUT])["messages"][1]
    assert message["content"] is None
    assert "reasoning_content" not in message


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"max_output_tokens": 9}, {"max_completion_tokens": 9}),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0, "top_p": 0.5}),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"user": "u", "prompt_cache_key": "k"}, {"user": "u"}),
        ({"prompt_cache_key": "k"}, {"user": "k"}),
        ({"top_k": 3, "chat_template_kwargs": {"a": [1]}}, {"top_k": 3, "chat_template_kwargs": {"a": [1]}}),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}},
            {"response_format": {"type": "json_schema",
                                 "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}},
        ),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"include": ["reasoning.encrypted_content"]}, {}),
        ({"metadata": {"a": "b"}, "store": False, "truncation": "disabled", "background": False,
          "service_tier": "flex", "safety_identifier": "s", "stream_options": {"include_obfuscation": False},
          "conversation": None, "max_tool_calls": 3}, {}),
        ({"parallel_tool_calls": True}, {}),
    ],
)  # fmt: skip
def test_fields(given: dict[str, Any], sent: dict[str, Any]) -> None:
    assert {name: value for name, value in chat(**given).items() if name not in ("model", "messages")} == sent


CHAT_FUNCTION = {"type": "function", "function": {name: FUNCTION[name] for name in FUNCTION if name != "type"}}
OTHER = {"type": "function", "name": "other", "parameters": None}


@pytest.mark.parametrize(
    ("choice", "sent", "names"),
    [
        ("auto", "auto", ["weather", "other"]),
        ("none", "none", ["weather", "other"]),
        ("required", "required", ["weather", "other"]),
        ({"type": "function", "name": "other"}, {"type": "function", "function": {"name": "other"}},
         ["weather", "other"]),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "other"}]},
         "required", ["other"]),
    ],
)  # fmt: skip
def test_tools(choice: Any, sent: Any, names: list[str]) -> None:
    found = chat(tools=[FUNCTION, OTHER], tool_choice=choice, parallel_tool_calls=False)
    assert [tool["function"]["name"] for tool in found["tools"]] == names
    assert found["tool_choice"] == sent
    assert found["parallel_tool_calls"] is False
    if names[0] == "weather":
        assert found["tools"][0] == CHAT_FUNCTION


def test_functions_of_a_namespace_have_it_in_their_names() -> None:
    space = {"type": "namespace", "name": "agents", "description": "Of all.", "tools": [FUNCTION, OTHER]}
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "namespace": "agents", "arguments": "{}"}
    found = chat(tools=[FUNCTION, space], input=[{"role": "user", "content": "?"}, call])
    assert [tool["function"]["name"] for tool in found["tools"]] == ["weather", "agents__weather", "agents__other"]
    assert found["messages"][1]["tool_calls"][0]["function"]["name"] == "agents__weather"


def message_with(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"background": True}, "background", "batch API"),
        ({"conversation": "conv_1"}, "conversation", "previous_response_id"),
        ({"truncation": "auto"}, "truncation", "disabled"),
        ({"prompt": {"id": "p"}}, "prompt", "instructions"),
        ({"messages": []}, "messages", "use input"),
        ({"max_tokens": 5}, "max_tokens", "use max_output_tokens"),
        ({"response_format": {"type": "text"}}, "response_format", "text.format"),
        ({"input": None}, "input", "expected a string or a list"),
        ({"input": []}, "input", "at least one"),
        ({"input": 5}, "input", "expected a string or a list"),
        ({"input": [{"role": "king", "content": "Hi"}]}, "input[0].role", "user, assistant"),
        ({"input": [{"role": "user"}]}, "input[0].content", "expected a string"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content", "expected"),
        ({"input": [{"type": "computer_call", "output": {}}]}, "input[0].type", "'computer_call'"),
        ({"input": [{}]}, "input[0]", "role"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": ""}]}, "input[0].call_id", "string"),
        ({"input": message_with({"type": "input_file", "file_id": "f"})}, "input[0].content[0].type", "'input_file'"),
        ({"input": message_with({"type": "input_image", "file_id": "f"})}, "input[0].content[0].image_url", "URL"),
        ({"input": message_with({"type": "input_text"})}, "input[0].content[0].text", "string"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'web_search'"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].type", "'custom'"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "name"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name", "not within function"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "custom"}]}]}, "tools[0].tools[0].type",
         "'custom'"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": str(n)} for n in
                                                                 range(1025)]}]}, "tools", "at most 1024"),
        ({"tools": [{"type": "function", "name": "f"}] * 1025}, "tools", "at most 1024"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{}] * 513}] * 2}, "tools", "1026 functions"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{}] * 250_000}]}, None, "too many objects"),
        ({"metadata": dict.fromkeys(map(str, range(500_001)), "")}, None, "too many keys"),
        ({"include": ["a"] * 500_001}, None, "too many strings"),
        ({"tools": [{"type": "function", "name": "f", "parameters": []}]}, "tools[0].parameters", "object"),
        ({"tool_choice": "maybe"}, "tool_choice", "'required'"),
        ({"tool_choice": {"type": "web_search_preview"}}, "tool_choice.type", "web_search_preview"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice.name", "no tools"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type", "json_schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "not within json_schema"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema", "object"),
        ({"include": ["everything"]}, "include", "message.output_text.logprobs"),
        ({"max_output_tokens": 0}, "max_output_tokens", "at least 1"),
        ({"top_logprobs": 21}, "top_logprobs", "at most 20"),
        ({"temperature": "hot"}, "temperature", "expected a number"),
        ({"stream": "yes"}, "stream", "expected true or false"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "at most 16"),
        ({"metadata": {"k" * 65: ""}}, "metadata", "64"),
        ({"metadata": {"k": 5}}, "metadata[...]", "expected a string"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(given: dict[str, Any], param: str | None, words: str) -> None:
    with pytest.raises(TranslationError) as caught:
        chat(**given)
    assert caught.value.param == param
    assert words in caught.value.message
    assert param is None or param.partition("[")[0].partition(".")[0] in caught.value.message


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"input": "\xff"}', b"[" * 100_000, b'{"input": ' + b"[" * 100_000, b'{"a":{},' * 500_001],
    ids=["empty", "list", "half", "no UTF-8", "deep", "deep input", "many objects"],
)  # fmt: skip
def test_a_body_that_is_none_is_an_error(body: bytes) -> None:
    with pytest.raises(TranslationError):
        read(body)


@pytest.mark.parametrize("kind", [Responses, lambda kept, beside: InputTokens(kept, beside, lambda model: ["native"])])
def test_others_do_not_wait_for_the_translation_of_a_large_request(kind: Any) -> None:
    surface, head = kind(KeptResponses(None), FairThreads()), Head(b"POST", b"/", "/", [], {}, "", "abc")
    head.tenant = tenant("key", name="one", slot=0)
    small, large = (json.dumps({"input": "x" * size}).encode() for size in (9, 300_000))
    assert not isinstance(surface.translate(head, small), Coroutine)
    beside = surface.translate(head, large)
    assert isinstance(beside, Coroutine)
    assert json.loads(asyncio.run(beside).body)["messages"] == [{"role": "user", "content": "x" * 300_000}]
    refused = surface.translate(head, large.replace(b"input", b"inptu"))
    with pytest.raises(TranslationError, match="input: expected"):
        asyncio.run(refused)


def test_an_empty_body_is_called_so() -> None:
    with pytest.raises(TranslationError, match="the body is empty"):
        read(b"")


def test_parts_are_bounded() -> None:
    with pytest.raises(TranslationError, match="at most 16384"):
        chat(input=[{"role": "user", "content": [{"type": "input_text", "text": "a"}] * 16_385}])


def test_items_are_bounded() -> None:
    with pytest.raises(TranslationError, match="at most 8192"):
        read(json.dumps({"input": [{"role": "user", "content": "Hi"}] * 8193}).encode())
