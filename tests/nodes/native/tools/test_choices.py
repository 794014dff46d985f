"""Choices whose text is read: special tokens as markers, counts, finish reasons, and going on after any token."""

from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from slurminfer.nodes.native.api.answers.chat_format import ChatFormat
from slurminfer.nodes.native.api.answers.formats import Origin, usage
from slurminfer.nodes.native.api.answers.generation import Choice, Delta, TextOptions
from slurminfer.nodes.native.api.answers.reader import Reading
from slurminfer.nodes.native.api.reasoning.tags import THINKING
from slurminfer.nodes.native.api.tools.families import FAMILIES
from slurminfer.nodes.native.engine.request import FinishReason, Request, SamplingParams
from slurminfer.nodes.native.tokenizer import Tokenizer

BY_NAME = {family.name: family for family in FAMILIES}
HERMES = '<think>\nWhich? ü\n</think>\n\nWait.\n<tool_call>\n{"name": "f", "arguments": {"a": "ü"}}\n</tool_call>'
DEEPSEEK = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
    "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
)
ORIGIN = Origin("m", "1", include_usage=False)


def choice(tokenizer: Tokenizer, told: list[int], index: int = 0, **reading: Any) -> Choice:
    request = Request("r", [5], SamplingParams(max_tokens=500), told)
    return Choice(index, request, tokenizer, TextOptions(reading=Reading(**reading)))


def answer(tokenizer: Tokenizer, text: str, *, index: int = 0, **reading: Any) -> tuple[Choice, list[Delta]]:
    """The deltas of an answer of this text that ends with an end token."""
    found = choice(tokenizer, [], index, **reading)
    ids = tokenizer.encode(text, add_special_tokens=False)
    return found, [*(found.push(id, None, None) for id in ids), found.push(256, None, FinishReason.STOP)]


def whole(tokenizer: Tokenizer, deltas: list[Delta]) -> dict[str, Any]:
    message: dict[str, Any] = ChatFormat(tokenizer, ORIGIN).whole(deltas, {})["choices"][0]
    return message


def _plain(call: Any) -> tuple[str, str, str, str]:
    return call.id, call.type, call.function.name, call.function.arguments


READINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "hermes": (HERMES, {"family": BY_NAME["hermes"], "tags": THINKING[-1]}),
    "mistral": ("[THINK]Hm[/THINK]So:[TOOL_CALLS]f[ARGS]{}", {"family": BY_NAME["mistral"], "tags": THINKING[1]}),
    "deepseek": (DEEPSEEK, {"family": BY_NAME["deepseek"]}),
}


def test_a_whole_answer(tokenizer):
    text, reading = READINGS["hermes"]
    one = whole(tokenizer, answer(tokenizer, text, **reading)[1])
    message = one["message"]
    id = message["tool_calls"][0].pop("id")
    assert one["finish_reason"] == "tool_calls"
    assert id.startswith("call_")
    assert message == {
        "role": "assistant", "content": "Wait.", "refusal": None, "reasoning_content": "Which? ü",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": '{"a": "ü"}'}}],
    }  # fmt: skip


def test_markers_that_are_special_tokens_are_read(tokenizer):
    text, reading = READINGS["deepseek"]
    message = whole(tokenizer, answer(tokenizer, text, **reading)[1])["message"]
    assert message["content"] is None
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["f", "g"]
    text, reading = READINGS["mistral"]
    message = whole(tokenizer, answer(tokenizer, text, **reading)[1])["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm", "So:")
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert whole(tokenizer, answer(tokenizer, text)[1])["message"]["content"] == "HmSo:f{}", "special tokens are hidden"


@pytest.mark.parametrize("name", READINGS)
def test_a_stream_says_what_the_whole_answer_says(tokenizer, name):
    """Put together by OpenAI's own client."""
    text, reading = READINGS[name]
    deltas = answer(tokenizer, text, **reading)[1]
    format, state = ChatFormat(tokenizer, ORIGIN), ChatCompletionStreamState()
    thought = ""
    for delta in deltas:
        chunk = format.chunk(delta)
        thought += chunk["choices"][0]["delta"].get("reasoning_content", "")
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    streamed = state.get_final_completion().choices[0]
    one = whole(tokenizer, deltas)
    expected = ChatCompletion.model_validate({"id": "1", "created": 1, "model": "m", "object": "chat.completion",
                                              "choices": [one]}).choices[0]  # fmt: skip
    assert streamed.finish_reason == expected.finish_reason == "tool_calls"
    assert (streamed.message.content or None) == expected.message.content
    assert thought == one["message"].get("reasoning_content", "")
    assert streamed.message.tool_calls and expected.message.tool_calls
    assert [_plain(call) for call in streamed.message.tool_calls] == [_plain(c) for c in expected.message.tool_calls]


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize("at_once", [True, False])
def test_another_server_goes_on_after_any_token(tokenizer, name, at_once):
    text, reading = READINGS[name]
    reading = {**reading, "thoughts_at_once": at_once}
    ids = [*tokenizer.encode(text, add_special_tokens=False), 256]
    undisturbed, deltas = answer(tokenizer, text, **reading)
    for cut in range(len(ids) - 1):
        second = choice(tokenizer, ids[:cut], **reading)
        assert not second.skip(ids[:cut])
        rest = [second.push(id, None, FinishReason.STOP if id == 256 else None) for id in ids[cut:]]
        assert rest == deltas[cut:]
        assert usage([second], 1) == usage([undisturbed], 1)


def test_tokens_of_thought_are_counted(tokenizer):
    text = "<think>abc</think>d"
    found = answer(tokenizer, text, tags=THINKING[-1])[0]
    details = usage([found], 1)["completion_tokens_details"]
    assert details["reasoning_tokens"] == len("abc</think")
    assert usage([answer(tokenizer, text)[0]], 1)["completion_tokens_details"]["reasoning_tokens"] == 0


def test_thoughts_that_are_not_wanted_are_left_out_and_counted(tokenizer):
    found, deltas = answer(tokenizer, "<think>abc</think>d", tags=THINKING[-1], tells_thoughts=False)
    assert whole(tokenizer, deltas)["message"] == {"role": "assistant", "content": "d", "refusal": None}
    assert found.reasoning_tokens


def test_an_answer_ends_with_its_only_call(tokenizer):
    text = '<tool_call>{"name": "f", "arguments": {}}'
    found = choice(tokenizer, [], family=BY_NAME["hermes"], one_call=True)
    assert found.may_end
    deltas = [found.push(id, None, None) for id in tokenizer.encode(text, add_special_tokens=False)]
    assert [delta.finish for delta in deltas if delta.finish] == [FinishReason.TOOL_CALLS] == [deltas[-1].finish]
    assert choice(tokenizer, [], family=BY_NAME["hermes"], one_call=True).skip(
        tokenizer.encode(text, add_special_tokens=False)
    ), "there is nothing to go on with"


def test_ids_differ_between_choices_and_places(tokenizer):
    text = '<tool_call>{"name": "f"}</tool_call>' * 2

    def ids(index: int) -> list[str]:
        deltas = answer(tokenizer, text, index=index, family=BY_NAME["hermes"])[1]
        return [call.id for delta in deltas for call in delta.calls if call.id]

    assert len({*ids(0), *ids(1)}) == 4
    assert ids(0) == ids(0)


def test_a_cut_answer_has_the_reason_and_what_there_is(tokenizer):
    found = choice(tokenizer, [], family=BY_NAME["hermes"])
    ids = tokenizer.encode('<tool_call>{"name": "f", "arguments": {"a": "b', add_special_tokens=False)
    deltas = [found.push(id, None, None) for id in ids[:-1]] + [found.push(ids[-1], None, FinishReason.LENGTH)]
    one = whole(tokenizer, deltas)
    assert (one["finish_reason"], one["message"]["content"]) == ("length", None)
    assert one["message"]["tool_calls"][0]["function"]["arguments"] == '{"a": "b'
