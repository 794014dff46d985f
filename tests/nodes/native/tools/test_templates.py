"""Tools and calls as chat templates get them, of families that know tools and of those that do not."""

import asyncio
import json
from pathlib import Path
from typing import Any, get_args

import pytest

from slurminfer.nodes.native.api.requests.messages import turns
from slurminfer.nodes.native.api.template.chat_template import ChatTemplate, find_sources
from slurminfer.nodes.native.api.template.jinja import ChatError, RenderCall, Template
from slurminfer.nodes.native.api.tools.families import FAMILIES, family_of
from slurminfer.nodes.native.options import ToolParser

TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "f", "description": "<b> ü", "parameters": {"type": "object"}}}
]
CALL = {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": '{"a": "ü"}'}}
CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": "A"},
    {"role": "assistant", "content": "So.", "tool_calls": [CALL, CALL]},
    {"role": "tool", "tool_call_id": "call_0", "name": "f", "content": "1"},
    {"role": "tool", "tool_call_id": "call_1", "content": "2"},
]
PLAIN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
CHATML = """\
{%- if tools %}{{ 'TOOLS ' + (tools | tojson) + '\n' }}{% endif %}
{%- for m in messages %}{{ m.role + ' ' + m.content }}
    {%- for call in m.tool_calls %}{{ '<tool_call>' + (call.function | tojson) }}{% endfor %}
{%- endfor %}"""


def render(directory: Path, source: str, messages: list[dict[str, Any]], tools: Any) -> str:
    (directory / "chat_template.jinja").write_text(source, encoding="utf-8")

    async def ask() -> str:
        template = ChatTemplate(directory, {})
        await template.start()
        try:
            return await template.render(_call(messages, tools))
        finally:
            await template.close()

    return asyncio.run(ask())


def _call(messages: list[dict[str, Any]], tools: Any) -> RenderCall:
    return RenderCall(
        messages=turns(messages), add_generation_prompt=False, continue_final_message=False, most_bytes=99_999,
        tools=tools,
    )  # fmt: skip


def test_a_template_gets_tools_as_in_transformers():
    from transformers.utils.chat_template_utils import render_jinja_template

    for tools in (TOOLS, None):
        messages = [{"role": "user", "content": "A"}]
        texts = render_jinja_template([messages], tools=tools, chat_template=CHATML)[0]
        assert [Template(CHATML, {}).render(_call(messages, tools))] == list(texts)


@pytest.mark.process
def test_a_template_that_knows_tools_gets_them_as_they_are(tmp_path):
    text = render(tmp_path, CHATML, CHAT, TOOLS)
    assert text.startswith(f"TOOLS {json.dumps(TOOLS, ensure_ascii=False)}\n")
    assert 'So.<tool_call>{"name": "f", "arguments": {"a": "ü"}}' in text
    assert text.endswith("tool 1tool 2")


@pytest.mark.process
def test_a_template_that_knows_no_tools_gets_them_as_text(tmp_path):
    text = render(tmp_path, PLAIN, CHAT, TOOLS)
    call = '<tool_call>\n{"name": "f", "arguments": {"a": "ü"}}\n</tool_call>'
    assert text.startswith("[system] You can call functions.")
    assert json.dumps(TOOLS[0], ensure_ascii=False) in text
    assert f"[assistant] So.\n{call}\n{call}\n[user] <tool_response>\n1\n</tool_response>\n<tool_response>\n2" in text


@pytest.mark.process
def test_the_clients_system_message_stays_in_front(tmp_path):
    text = render(tmp_path, PLAIN, [{"role": "system", "content": "Be brief."}, CHAT[0]], TOOLS)
    assert text.startswith("[system] Be brief.\n\nYou can call functions.")
    assert text.count("[system]") == 1


@pytest.mark.process
def test_a_template_without_system_messages_gets_them_with_the_first_message(tmp_path):
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN
    assert render(tmp_path, refusing, CHAT[:1], TOOLS).startswith("[user] You can call functions.")
    with pytest.raises(ChatError, match="no system"):
        render(tmp_path, refusing, [{"role": "system", "content": "Be brief."}, CHAT[0]], TOOLS)


@pytest.mark.process
def test_without_tools_nothing_is_added(tmp_path):
    assert render(tmp_path, PLAIN, CHAT[:1], None) == "[user] A\n"


@pytest.mark.process
def test_a_template_for_tools_is_taken_where_there_are_tools(tmp_path):
    named = [{"name": "tool_use", "template": "T{{ tools | length }}"}, {"name": "default", "template": "D"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert find_sources(tmp_path) == ("D", "T{{ tools | length }}")

    async def ask() -> list[str]:
        template = ChatTemplate(tmp_path, {})
        await template.start()
        try:
            assert template.knows_tools
            return [await template.render(_call(CHAT[:1], tools)) for tools in (TOOLS, None)]
        finally:
            await template.close()

    assert asyncio.run(ask()) == ["T1", "D"]


def test_a_template_for_tools_may_lie_in_a_folder(tmp_path):
    assert find_sources(tmp_path) == (None, None)
    folder = tmp_path / "additional_chat_templates"
    folder.mkdir()
    (folder / "tool_use.jinja").write_text("T")
    assert find_sources(tmp_path) == ("T", None)
    (tmp_path / "chat_template.jinja").write_text("D")
    assert find_sources(tmp_path) == ("D", "T")


SIGNS = [
    ("hermes", "within <tool_call></tool_call> tags"),
    ("qwen_coder", "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>"),
    ("glm", "<tool_call>{name}\n<arg_key>{key}</arg_key>"),
    ("mistral", "{{- '[TOOL_CALLS] [' }}"),
    ("deepseek", "{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'}}"),
    ("llama", """{{- '{"name": "' + tool_call.name + '", ' }}{{- '"parameters": ' }}"""),
    ("minimax", "{%- set toolcall_begin_token = '<minimax:tool_call>' -%}"),
    ("kimi", "<|tool_calls_section_begin|>"),
]


@pytest.mark.parametrize(("name", "template"), SIGNS)
def test_the_family_is_that_of_the_template(name, template):
    family = family_of("auto", template, knows_tools=True)
    assert family is not None and family.name == name


def test_the_family_can_be_chosen():
    for family in FAMILIES:
        assert family_of(family.name, "", knows_tools=False) is family  # type: ignore[arg-type]
    assert family_of("none", "<tool_call>", knows_tools=True) is None
    assert family_of("auto", "{{ tools }}", knows_tools=True) is None, "a format that nobody knows"
    hermes = family_of("auto", "", knows_tools=False)
    assert hermes is not None and hermes.name == "hermes"
    assert {family.name for family in FAMILIES} == set(get_args(ToolParser)) - {"auto", "none"}
