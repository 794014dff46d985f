"""Answers that must be calls: whatever a model draws from what its grammar allows, valid calls are read."""

import json
from typing import Any

import jsonschema_rs
import pytest

from slurminfer.nodes.native.api.answers.reader import AnswerReader, Reading
from slurminfer.nodes.native.api.reasoning.tags import THINKING
from slurminfer.nodes.native.api.requests.tools import Mode, Toolset, toolset
from slurminfer.nodes.native.api.tools.families import FAMILIES, Family
from slurminfer.nodes.native.api.tools.plan import CallPlan, after_thinking, call_plan
from slurminfer.nodes.native.grammar.constraint import JsonSchema
from slurminfer.nodes.native.tokenizer import Tokenizer

from ....support.grammars import TokenGrammars

BY_NAME = {family.name: family for family in FAMILIES}
BARE = ("llama", "pythonic", "harmony")  # without a marker that begins calls
WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Zürich", "Bern"]}, "days": {"type": "integer", "maximum": 9}},
    "required": ["city"],
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER, "strict": True}},
    {"type": "function", "function": {"name": "ping"}},
]
# Each family, and what its template has where it has several forms.
FORMS: list[tuple[str | None, str]] = [(family.name, "") for family in FAMILIES]
FORMS += [("mistral", "[ARGS]"), ("deepseek", "```json"), ("glm", "{function-name}<arg_key>"), (None, "")]
FORMS += [("dsml", "｜DSML｜tool_calls>"), ("granite", "functools[")]
CLOSED = {**WEATHER, "additionalProperties": False}
SCHEMAS: dict[str, dict[str, Any]] = {"get_weather": CLOSED, "ping": {"maxProperties": 0}}
PLAIN = JsonSchema({"enum": ["no call"]})


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> TokenGrammars:
    return TokenGrammars(tokenizer, 266)


def _plan(name: str | None, template: str, tools: Toolset, **options: Any) -> CallPlan:
    family = None if name is None else BY_NAME[name]
    return call_plan(tools, family, template, options.pop("wanted", None), **options)


def _tools(choice: Any = "required", *, parallel: bool = True) -> Toolset:
    return toolset(TOOLS, choice, parallel)


def _read(family: Family | None, text: str, **options: Any) -> tuple[str, list[tuple[str | None, str]]]:
    reader = AnswerReader(Reading(family=family, functions=_tools().schemas, **options), lambda: b"")
    parts = reader.push(text) + reader.flush()
    return parts.text, [(call.name, call.arguments) for call in parts.calls]


def _texts(grammars: TokenGrammars, constraint: Any, seeds: int = 8) -> list[str]:
    texts = [grammars.random_text(constraint, seed, 2000) for seed in range(seeds)]
    found = [text for text in texts if text is not None]
    assert found
    return found


@pytest.mark.parametrize(("name", "template"), FORMS)
@pytest.mark.parametrize("parallel", [True, False])
def test_forced_answers_are_valid_calls(grammars, name, template, parallel):
    plan = _plan(name, template, _tools(parallel=parallel))
    for answer in _texts(grammars, plan.constraint):
        text, calls = _read(plan.family, answer)
        assert (text, bool(calls)) == ("", True), answer
        assert parallel or len(calls) == 1
        for called, arguments in calls:
            assert called in SCHEMAS and called is not None
            jsonschema_rs.validate(SCHEMAS[called], json.loads(arguments))


@pytest.mark.parametrize(("name", "template"), FORMS)
def test_a_named_function_is_called_once(grammars, name, template):
    tools = _tools({"type": "function", "function": {"name": "ping"}})
    assert not tools.parallel
    plan = _plan(name, template, tools)
    for answer in _texts(grammars, plan.constraint):
        text, [(called, arguments)] = _read(plan.family, answer)
        assert (text, called, json.loads(arguments)) == ("", "ping", {})


@pytest.mark.parametrize("name", [family.name for family in FAMILIES if family.name not in BARE])
def test_in_free_text_what_begins_like_a_call_is_one(grammars, name):
    plan = _plan(name, "", _tools("auto"))
    assert plan.constraint is not None
    assert grammars.takes(plan.constraint, "No call at all.")
    begin = plan.family.format.begins[0] if plan.family else ""
    assert not grammars.takes(plan.constraint, f"{begin}something")
    forced = _plan(name, "", _tools(parallel=False)).constraint
    for answer in _texts(grammars, forced):
        assert grammars.takes(plan.constraint, f"Let me see. {answer}")
        assert _read(plan.family, f"Let me see. {answer}")[0] == "Let me see."


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_without_strict_functions_nothing_is_constrained(mode: Mode):
    assert _plan("hermes", "", toolset(TOOLS[1:], mode, None)).constraint is None


def test_functions_that_are_not_strict_take_any_arguments_in_free_text(grammars):
    plan = _plan("hermes", "", _tools("auto"))
    call = '<tool_call>\n{"name": "NAME", "arguments": {"x": 1}}\n</tool_call>'
    assert grammars.takes(plan.constraint, call.replace("NAME", "ping"))
    assert not grammars.takes(plan.constraint, call.replace("NAME", "get_weather"))
    lenient = _plan("hermes", "", _tools(), lenient=True)
    assert grammars.takes(lenient.constraint, call.replace("NAME", "ping"))
    assert not grammars.takes(lenient.constraint, call.replace("NAME", "get_weather"))


def test_a_wanted_form_is_for_answers_without_calls(grammars):
    plan = _plan("hermes", "", _tools("auto"), wanted=PLAIN)
    assert grammars.takes(plan.constraint, '"no call"')
    assert grammars.takes(plan.constraint, '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>')
    assert not grammars.takes(plan.constraint, "something else")
    assert _plan(None, "", _tools("auto"), wanted=PLAIN).constraint == PLAIN
    assert _plan(None, "", Toolset(), wanted=PLAIN) == CallPlan(None, PLAIN)


@pytest.mark.parametrize("tags", [THINKING[-1], THINKING[1]])
def test_what_is_forced_comes_after_the_thinking(grammars, tags):
    call = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
    forced = _plan("hermes", "", _tools()).constraint
    assert forced is not None
    within = after_thinking(forced, tags, f"Q{tags.begin}\n", within=True)
    assert grammars.takes(within, f"Hm.\n{tags.end}\n\n{call}")
    assert not grammars.takes(within, call)
    may = after_thinking(forced, tags, "Q", within=False)
    assert grammars.takes(may, call)
    assert grammars.takes(may, f"{tags.begin}Hm.{tags.end}{call}")
    assert not grammars.takes(may, "Hm.")
    switched_off = after_thinking(forced, tags, f"Q{tags.begin}\n\n{tags.end}\n\n", within=False)
    assert switched_off == forced == after_thinking(forced, None, "Q", within=False)
