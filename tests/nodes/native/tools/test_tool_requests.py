"""What requests say of tools and thinking, and what is refused."""

import json
from typing import Any

import pytest

from slurminfer.nodes.native.api.errors import ApiError
from slurminfer.nodes.native.api.requests.chat import ChatRequest
from slurminfer.nodes.native.api.requests.protocol import parse
from slurminfer.nodes.native.api.requests.reasoning import template_variables
from slurminfer.nodes.native.api.requests.tools import MAX_TOOLS, Toolset


def tool(name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def toolset(**fields: Any) -> Toolset:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return parse(ChatRequest, json.dumps(body).encode()).toolset


def choose(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allow(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [choose(name) for name in names]}}


TWO = [tool("f", parameters={"type": "object"}, strict=True), tool("g", description=None)]


@pytest.mark.parametrize(
    ("fields", "mode", "names"),
    [
        ({}, "auto", ["f", "g"]),
        ({"tool_choice": None}, "auto", ["f", "g"]),
        ({"tool_choice": "auto"}, "auto", ["f", "g"]),
        ({"tool_choice": "none"}, "none", []),
        ({"tool_choice": "required"}, "required", ["f", "g"]),
        ({"tool_choice": choose("g")}, "required", ["g"]),
        ({"tool_choice": allow("auto", "g")}, "auto", ["g"]),
        ({"tool_choice": allow("required", "g", "f", "g")}, "required", ["g", "f"]),
    ],
)
def test_which_functions_may_be_called(fields, mode, names):
    tools = toolset(tools=TWO, **fields)
    assert (tools.mode, [function.name for function in tools.functions]) == (mode, names)
    assert len(tools.tools) == (0 if mode == "none" else 2), "the template gets all of them"


def test_what_a_function_is():
    tools = toolset(tools=TWO)
    f, g = tools.functions
    assert (f.parameters, f.strict, g.parameters, g.strict) == ({"type": "object"}, True, {}, False)
    assert tools.tools[1] == tool("g"), "without what is null"
    assert tools.parallel
    assert not toolset(tools=TWO, parallel_tool_calls=False).parallel
    assert toolset(tool_choice="auto") == toolset(tools=[]) == Toolset()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": ["f"]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [tool(""), tool("f")]}, "tools[0].function.name"),
        ({"tools": [tool("f"), tool("a b")]}, "tools[1].function.name"),
        ({"tools": [tool("f" * 129)]}, "tools[0].function.name"),
        ({"tools": [tool("f"), tool("f")]}, "tools[1].function.name"),
        ({"tools": [tool("f", parameters=[])]}, "tools[0].function.parameters"),
        ({"tools": [tool("f", strict="yes")]}, "tools[0].function.strict"),
        ({"tools": [tool(f"f{index}") for index in range(MAX_TOOLS + 1)]}, "tools"),
        ({"tools": "f"}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": choose("f")}, "tool_choice.function.name"),
        ({"tools": TWO, "tool_choice": "f"}, "tool_choice"),
        ({"tools": TWO, "tool_choice": {"type": "custom"}}, "tool_choice"),
        ({"tools": TWO, "tool_choice": choose("h")}, "tool_choice.function.name"),
        ({"tools": TWO, "tool_choice": {"type": "function", "function": 3}}, "tool_choice"),
        ({"tools": TWO, "tool_choice": allow("none", "f")}, "tool_choice.allowed_tools.mode"),
        ({"tools": TWO, "tool_choice": allow("auto", "h")}, "tool_choice.allowed_tools.tools[0].function.name"),
        ({"tools": TWO, "tool_choice": allow("auto")}, "tool_choice"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"reasoning_effort": "a lot"}, "reasoning_effort"),
        ({"include_reasoning": 3}, "include_reasoning"),
    ],
)
def test_what_is_refused(fields, param):
    with pytest.raises(ApiError) as refused:
        toolset(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("effort", "known", "variables"),
    [
        (None, {"enable_thinking"}, {}),
        ("low", {"reasoning_effort"}, {"reasoning_effort": "low"}),
        ("low", {"enable_thinking"}, {}),
        ("none", {"enable_thinking", "messages"}, {"enable_thinking": False}),
        ("none", {"thinking"}, {"thinking": False}),
    ],
)
def test_the_effort_is_given_to_templates_that_know_it(effort, known, variables):
    assert template_variables({}, effort, known) == variables


def test_the_clients_own_variables_win():
    given = {"enable_thinking": True, "reasoning_effort": "high"}
    assert template_variables(given, "none", {"enable_thinking", "reasoning_effort"}) == given


@pytest.mark.parametrize("tool", [{"name": "f", "input_schema": {}}, {"type": "function", "name": "f"}])
def test_tools_as_other_apis_write_them_are_told_how_to_write_them_here(tool):
    with pytest.raises(ApiError, match="put name, description and parameters"):
        toolset(tools=[tool])


def test_a_choice_as_the_responses_api_writes_it_is_told_how_to_write_it_here():
    with pytest.raises(ApiError, match=r'\{"type": "function", "function": \{"name": \.\.\.\}\}'):
        toolset(tools=TWO, tool_choice={"type": "function", "name": "f"})
