"""The channels of gpt-oss: thoughts, words and calls, with and without tools."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from slurminfer.nodes.native.api.answers.generation import Choice, TextOptions
from slurminfer.nodes.native.api.answers.reader import AnswerReader, Parts, Reading
from slurminfer.nodes.native.api.reasoning.tags import tags_of
from slurminfer.nodes.native.api.requests.tools import Toolset, toolset
from slurminfer.nodes.native.api.tools.families import FAMILIES, family_of
from slurminfer.nodes.native.api.tools.harmony import MARKERS, head_of
from slurminfer.nodes.native.api.tools.plan import call_plan
from slurminfer.nodes.native.engine.request import FinishReason, Request, SamplingParams
from slurminfer.nodes.native.grammar.constraint import JsonSchema
from slurminfer.nodes.native.tokenizer import Tokenizer

from ....support.grammars import TokenGrammars

HARMONY = next(family for family in FAMILIES if family.name == "harmony")
TEMPLATE = """\
{%- for m in messages %}{{ '<|start|>' + m.role + '<|channel|>final<|message|>' + m.content + '<|end|>' }}{% endfor %}
{{- '<|start|>assistant<|channel|>analysis<|message|>' }}"""
TAGS = tags_of(TEMPLATE, [])
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "f", "strict": True, "parameters": {
        "properties": {"a": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["a"]}}},
]  # fmt: skip
THOUGHT = "<|channel|>analysis<|message|>Hm, 2 < 3.<|end|><|start|>assistant"
PLAN = "<|channel|>commentary<|message|>First f.<|end|><|start|>assistant"
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
FINAL = "<|channel|>final<|message|>Yes."


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A token for each byte, and those of gpt-oss, two of which end an answer."""
    directory: Path = tmp_path_factory.mktemp("harmony")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    written = tokenizers.Tokenizer(models.BPE(vocab={char: id for id, char in enumerate(alphabet)}, merges=[]))
    written.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    written.decoder = decoders.ByteLevel()
    written.add_special_tokens(list(MARKERS))
    written.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<|return|>"}')
    call, back = (written.token_to_id(name) for name in ("<|call|>", "<|return|>"))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [back, call]}))
    return Tokenizer(directory)


@pytest.fixture(scope="module")
def grammars(own: Tokenizer) -> TokenGrammars:
    return TokenGrammars(own, 256 + len(MARKERS))


def read(pieces: list[str], *, tools: bool = True, **options: Any) -> tuple[str, str, list[tuple[str | None, str]]]:
    reading = Reading(**{"family": HARMONY, "tags": TAGS, "head": "assistant",
                         "functions": {"f": {}} if tools else {}, **options})  # fmt: skip
    reader, parts = AnswerReader(reading, lambda: b""), Parts()
    for piece in pieces:
        parts += reader.push(piece)
    parts += reader.flush()
    return parts.text, parts.reasoning, [(call.name, call.arguments) for call in parts.calls]


def test_the_family_is_that_of_the_template():
    assert family_of("auto", TEMPLATE, knows_tools=True) is HARMONY
    assert TAGS is not None and TAGS.models == "gpt-oss"


ANSWERS = [
    (THOUGHT + FINAL, ("Yes.", "Hm, 2 < 3.", [])),
    (THOUGHT + PLAN + THOUGHT + CALL, ("First f.", "Hm, 2 < 3.\nHm, 2 < 3.", [("f", '{"a": 1}')])),
    (" to=functions.f<|channel|>commentary json<|message|>{}<|call|>", ("", "", [("f", "{}")])),
    ("<|channel|>analysis to=functions.f code<|message|>{}", ("", "", [("f", "{}")])),
    ("<|channel|>commentary to=assistant<|message|>x", ("x", "", [])),
    ("<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": ", ("", "", [("f", '{"a": ')])),
    (THOUGHT + "<|channel|>fin", ("", "Hm, 2 < 3.", [])),
    ("<|channel|>analysis<|message|>cut o", ("", "cut o", [])),
    ("Words alone.", ("Words alone.", "", [])),
    (PLAN.removesuffix("<|start|>assistant") + FINAL, ("First f.\nYes.", "", [])),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "parts"), ANSWERS)
@settings(max_examples=40)
@given(data=st.data())
def test_channels_are_told_apart_in_any_pieces(answer, parts, data):
    places = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=20)))
    pieces = [answer[start:end] for start, end in zip([0, *places], [*places, len(answer)], strict=True)]
    assert read(pieces) == parts
    assert read(pieces, thoughts_at_once=False) == parts
    assert read(pieces, tells_thoughts=False) == (parts[0], "", parts[2])


def test_without_tools_there_are_no_calls():
    assert read([THOUGHT + CALL], tools=False) == ('{"a": 1}', "Hm, 2 < 3.", [])
    assert call_plan(Toolset(), HARMONY, TEMPLATE, None).family is HARMONY, "channels are there without tools"


def test_thoughts_that_are_not_separated_are_text():
    assert read([THOUGHT + FINAL], tags=None) == ("Hm, 2 < 3.\nYes.", "", [])


def test_an_answer_may_go_on_with_a_message():
    head = head_of("<|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>final<|message|>Hel")
    assert read(["lo<|end|>"], head=head) == ("lo", "", [])
    plan = call_plan(toolset(TOOLS, "required", None), HARMONY, TEMPLATE, None, head=head)
    assert plan.constraint != call_plan(toolset(TOOLS, "required", None), HARMONY, TEMPLATE, None).constraint


def test_thoughts_come_at_once_and_are_counted(own):
    request = Request("r", [5], SamplingParams(max_tokens=500, stop_token_ids=frozenset(own.end_ids)), [])
    reading = Reading(family=HARMONY, tags=TAGS, head="assistant", functions={"f": {}})
    choice = Choice(0, request, own, TextOptions(reading=reading))
    ids = own.encode(THOUGHT + CALL, add_special_tokens=False)
    deltas = [choice.push(id, None, FinishReason.STOP if id in own.end_ids else None) for id in ids]
    assert [delta.reasoning for delta in deltas if delta.reasoning] == ["H", "m", ",", " ", "2", " ", "< ", "3", "."]
    assert choice.reasoning_tokens == len("Hm, 2 < 3.")
    assert deltas[-1].finish is FinishReason.TOOL_CALLS
    assert "".join(call.arguments for delta in deltas for call in delta.calls) == '{"a": 1}'


def test_calls_are_forced_behind_thoughts(grammars):
    forced = call_plan(toolset(TOOLS, "required", None), HARMONY, TEMPLATE, None).constraint
    assert forced is not None
    assert grammars.takes(forced, CALL) and grammars.takes(forced, THOUGHT + THOUGHT + CALL)
    assert not grammars.takes(forced, FINAL) and not grammars.takes(forced, CALL.replace("1", "x"))
    assert not grammars.takes(forced, CALL.replace("functions.f", "functions.g"))


def test_strict_calls_in_answers(grammars):
    free = call_plan(toolset(TOOLS, "auto", None), HARMONY, TEMPLATE, None).constraint
    assert free is not None
    for answer in (FINAL, THOUGHT + PLAN + CALL, THOUGHT + FINAL):
        assert grammars.takes(free, answer)
    assert not grammars.takes(free, THOUGHT + CALL.replace("1", "10"))


def test_a_wanted_form_is_that_of_the_final_channel(grammars):
    wanted = JsonSchema({"enum": ["ok"]})
    plain = call_plan(Toolset(), HARMONY, TEMPLATE, wanted).constraint
    both = call_plan(toolset(TOOLS, "auto", None), HARMONY, TEMPLATE, wanted).constraint
    assert plain is not None and both is not None
    for constraint in (plain, both):
        assert grammars.takes(constraint, THOUGHT + FINAL.replace("Yes.", '"ok"'))
        assert not grammars.takes(constraint, FINAL)
    assert grammars.takes(both, THOUGHT + CALL) and not grammars.takes(plain, CALL)
