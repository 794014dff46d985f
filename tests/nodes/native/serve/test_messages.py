"""Messages of a chat, in particular earlier tool calls, as templates of several families want them."""

from typing import Any

import pytest

from slurminfer.nodes.native.api.errors import ApiError
from slurminfer.nodes.native.api.requests.messages import turns
from slurminfer.nodes.native.api.template.jinja import RenderCall, Template

USER = {"role": "user", "content": "A"}
RESULT = {"role": "tool", "tool_call_id": "call_0", "content": "42"}
TEXT = '{"a": 3,  "b": "ü"}'  # spaces as the model has written them


def _assistant(arguments: Any = TEXT, **more: Any) -> dict[str, Any]:
    call = {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call], **more}


def _render_with(template: Template, messages: list[dict[str, Any]]) -> str:
    call = RenderCall(
        messages=turns(messages), add_generation_prompt=False, continue_final_message=False, most_bytes=10_000
    )
    return template.render(call)


def _render(source: str, messages: list[dict[str, Any]]) -> str:
    """`source` is rendered for each message, with `m` for the message and `f` for its first call."""
    loop = "{% for m in messages %}{% set f = m.tool_calls[0].function if m.tool_calls else None %}{% if f %}"
    template = Template(f"{loop}{source}{{% else %}}{{{{ m.content }}}}{{% endif %}}|{{% endfor %}}", {})
    return _render_with(template, messages)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ f.arguments | tojson }}", '{"a": 3, "b": "ü"}'),
        ("{{ f | tojson }}", '{"name": "f", "arguments": {"a": 3, "b": "ü"}}'),
        ("{% for k, v in f.arguments | items %}{{ k }}={{ v }};{% endfor %}", "a=3;b=ü;"),
        ("{% for k, v in f.arguments.items() %}{{ k }}={{ v }};{% endfor %}", "a=3;b=ü;"),
        ("{{ f.arguments.a + 1 }}", "4"),
        ("{% if f.arguments is string %}s{% elif f.arguments is mapping %}m{% endif %}", "m"),
        ("{{ f.arguments }}", TEXT),
        ("{{ '```json\\n' + f.arguments + '\\n```' }}", f"```json\n{TEXT}\n```"),
        ("{{ f.name ~ f.arguments }}", f"f{TEXT}"),
        ("{{ f.arguments | string | length }}", str(len(TEXT))),
    ],
)
def test_arguments_are_an_object_or_text_as_the_template_wants(source, expected):
    assert _render(source, [USER, _assistant(), RESULT]) == f"A|{expected}|42|"


@pytest.mark.parametrize(
    ("arguments", "as_json", "as_text"),
    [
        ({"a": 3}, '{"a": 3}', '{"a": 3}'),
        ("", "{}", "{}"),
        (None, "{}", "{}"),
        ("not JSON", '"not JSON"', "not JSON"),
        ("[1]", '"[1]"', "[1]"),
        ('{"a": ' * 100_000, None, None),
    ],
)
def test_other_arguments_are_taken_too(arguments, as_json, as_text):
    if as_json is not None:
        assert _render("{{ f.arguments | tojson }}", [_assistant(arguments)]) == f"{as_json}|"
        assert _render("{{ f.arguments }}", [_assistant(arguments)]) == f"{as_text}|"
    else:
        assert _render("{{ f.name }}", [_assistant(arguments)]) == "f|"


@pytest.mark.parametrize("calls", [None, []])
def test_null_and_empty_lists_are_left_out_and_no_content_is_an_empty_string(calls):
    message = {"role": "assistant", "content": None, "tool_calls": calls, "refusal": None, "annotations": [],
               "function_call": None, "audio": None, "name": "Ann"}  # fmt: skip
    assert turns([message]) == [{"role": "assistant", "content": "", "name": "Ann"}]


def test_a_function_call_of_the_older_api_is_read_as_well():
    template = Template("{{ messages[0].function_call.arguments.a }}", {})
    message = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": TEXT}}
    text = _render_with(template, [message])
    assert text == "3"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"tool_calls": "x"}, "messages[0].tool_calls"),
        ({"tool_calls": [5]}, "messages[0].tool_calls[0]"),
        ({"tool_calls": [{"id": "x"}]}, "messages[0].tool_calls[0].function"),
        ({"tool_calls": [{"function": {"name": 5}}]}, "messages[0].tool_calls[0].function"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": 5}}]}, "messages[0].tool_calls[0].function.arguments"),
        ({"tool_calls": [{"function": {"name": "f"}}] * 1025}, "messages[0].tool_calls"),
        ({"function_call": "f"}, "messages[0].function_call"),
        ({"role": ["user"]}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
    ],
)
def test_what_is_no_message_is_refused_by_name(message, param):
    with pytest.raises(ApiError) as refused:
        turns([{"role": "assistant", "content": None, **message}])
    assert (refused.value.status, refused.value.param) == (400, param)
