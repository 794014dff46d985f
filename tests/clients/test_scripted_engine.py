"""The scripted engine: what it plays, what it refuses, and that OpenAI's client understands it behind a real router."""

import json
from typing import Any

import openai
import pytest

from . import endpoints
from .scripted_engine import MODEL, RefusedError, chunks, reply, whole

WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
ASKED: Any = {"role": "user", "content": 'Please.\nCALL get_weather {"city": "Paris"}'}


def asked(*messages, **fields):
    return {"model": MODEL, "messages": list(messages), "tools": [WEATHER], **fields}


def after(*results):
    """The messages when the tool of the script has returned these."""
    calls = reply(asked(ASKED))
    return [ASKED, calls, *({"role": "tool", "tool_call_id": "call_1_0", "content": text} for text in results)]


def test_a_line_of_the_prompt_is_a_call_of_the_tool():
    (call,) = reply(asked(ASKED))["tool_calls"]
    assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert whole(asked(ASKED))["choices"][0]["finish_reason"] == "tool_calls"


def test_several_lines_are_several_calls_with_ids_of_their_own():
    both = {"role": "user", "content": 'CALL get_weather {"city": "Paris"}\nCALL get_weather {"city": "Rome"}'}
    calls = reply(asked(both))["tool_calls"]
    assert [json.loads(call["function"]["arguments"])["city"] for call in calls] == ["Paris", "Rome"]
    assert len({call["id"] for call in calls}) == 2


def test_the_answer_quotes_what_the_tools_returned_since_the_call():
    assert reply(asked(*after("21 degrees", "rain")))["content"] == "The tool returned: 21 degrees\nrain"


def test_a_later_question_is_not_answered_with_an_older_result():
    talk = [
        *after("21 degrees"),
        {"role": "assistant", "content": "It is warm."},
        {"role": "user", "content": "Thanks"},
    ]
    assert reply(asked(*talk))["content"] == "You said: Thanks"


@pytest.mark.parametrize("fields", [{"tools": None}, {"tools": []}, {"tool_choice": "none"}])
def test_without_tools_nothing_is_called(fields):
    assert "tool_calls" not in reply(asked(ASKED, **fields))


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (asked(), "messages"),
        (asked({"role": "robot", "content": "x"}), "role"),
        (asked({"role": "user", "content": [{"type": "input_text", "text": "x"}]}), "content"),
        (asked({"role": "user", "content": 7}), "content"),
        (asked(ASKED, tools=[{"type": "web_search"}]), "tools"),
        (asked(ASKED, tools=[{"name": "get_weather", "input_schema": {}}]), "tools"),
        (asked({"role": "tool", "tool_call_id": "call_9", "content": "x"}), "tool_call_id"),
        (asked({"role": "user", "content": "CALL other {}"}), "other"),
    ],
)
def test_what_a_strict_engine_would_refuse_is_refused_by_name(body, named):
    with pytest.raises(RefusedError, match=named):
        reply(body)


def test_a_stream_has_the_arguments_in_pieces_and_usage_only_if_asked_for():
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(asked(ASKED))]
    pieces = [delta["tool_calls"][0]["function"]["arguments"] for delta in deltas if "tool_calls" in delta]
    assert len(pieces) > 2 and json.loads("".join(pieces)) == {"city": "Paris"}
    assert [chunk for chunk in chunks(asked(ASKED)) if "usage" in chunk] == []
    assert chunks(asked(ASKED, stream_options={"include_usage": True}))[-1]["usage"]["total_tokens"] > 2


@pytest.mark.process
def test_openai_s_client_calls_a_tool_through_a_router(tmp_path):
    with (
        endpoints.scripted(tmp_path) as endpoint,
        openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key=endpoint.key, max_retries=0) as client,
    ):
        with client.chat.completions.stream(model=MODEL, messages=[ASKED], tools=[WEATHER]) as stream:
            kinds = {event.type for event in stream}
            message: Any = stream.get_final_completion().choices[0].message
        assert "tool_calls.function.arguments.delta" in kinds
        result: Any = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "21 degrees"}
        said = client.chat.completions.create(model=MODEL, messages=[ASKED, message, result], tools=[WEATHER])
        assert said.choices[0].message.content == "The tool returned: 21 degrees"
        with pytest.raises(openai.BadRequestError, match="tool_call_id"):
            client.chat.completions.create(model=MODEL, messages=[ASKED, result], tools=[WEATHER])
