"""Chat templates render as transformers renders them, and refuse what they refuse with a reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from slurminfer.core.errors import CorruptModelError
from slurminfer.nodes.native.api.chat import ChatError, ChatTemplate

CHAT = [
    {"role": "system", "content": "Be <b>brief</b>."},
    {"role": "user", "content": " Hi "},
    {"role": "assistant", "content": "Hello  "},
]
LLAMA_2 = """\
{% if messages[0]['role'] == 'system' %}
    {% set messages = messages[1:] %}
{% endif %}
{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('roles must alternate') }}
    {% endif %}
    {% if message['role'] == 'user' %}
        {{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}
    {% else %}
        {% generation %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endgeneration %}
    {% endif %}
{% endfor %}
"""
EVERYTHING = """\
{%- for message in messages %}
    {%- if loop.index > 2 %}{% break %}{% endif %}
    {{- message | tojson }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '>' }}{% endif %}
"""


def _template(directory: Path, source: str) -> ChatTemplate:
    (directory / "chat_template.jinja").write_text(source)
    return ChatTemplate(directory, {"bos_token": "<s>", "eos_token": "</s>"})


def _render(template: ChatTemplate, messages=CHAT, *, begin=False, go_on=False) -> str:
    return template.render(messages, add_generation_prompt=begin, continue_final_message=go_on)


@pytest.mark.parametrize("source", [LLAMA_2, EVERYTHING])
@pytest.mark.parametrize("begin", [True, False])
def test_templates_render_as_in_transformers(tmp_path, source, begin):
    from transformers.utils.chat_template_utils import render_jinja_template

    tokens: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>"}
    texts = render_jinja_template([CHAT], chat_template=source, add_generation_prompt=begin, **tokens)[0]
    [expected] = list(texts)
    assert _render(_template(tmp_path, source), begin=begin) == expected


def test_a_continued_message_ends_the_prompt_and_keeps_its_spaces(tmp_path):
    text = _render(_template(tmp_path, LLAMA_2), go_on=True)
    assert text.endswith("[/INST]\n Hello  ") or text.endswith("[/INST] Hello  ")
    empty = [*CHAT[:-1], {"role": "assistant", "content": ""}]
    assert _render(_template(tmp_path, LLAMA_2), empty, go_on=True) == text.removesuffix("Hello  ")


def test_a_message_that_the_template_leaves_out_cannot_be_continued(tmp_path):
    with pytest.raises(ChatError, match="leaves the final message out"):
        _render(_template(tmp_path, "{{ messages[0].content }}"), go_on=True)


def test_the_templates_own_exceptions_reach_the_client(tmp_path):
    with pytest.raises(ChatError, match="roles must alternate"):
        _render(_template(tmp_path, LLAMA_2), [CHAT[1], CHAT[1]])


@pytest.mark.parametrize(
    "source", ["{{ messages.nothing.there }}", "{{ messages.__class__.__mro__ }}", "{{ 1 + 'a' }}"]
)
def test_a_template_that_fails_or_reaches_out_of_its_sandbox_is_refused(tmp_path, source):
    with pytest.raises(ChatError):
        _render(_template(tmp_path, source))


def test_dates_can_be_written(tmp_path):
    assert _render(_template(tmp_path, "{{ strftime_now('%Y') }}")).startswith("20")


def test_a_model_without_a_template_says_so(tmp_path):
    with pytest.raises(ChatError, match="no chat template"):
        _render(ChatTemplate(tmp_path, {}))


def test_of_several_templates_the_default_is_taken(tmp_path):
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "chat"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert _render(ChatTemplate(tmp_path, {})) == "chat"


def test_a_broken_template_is_found_when_the_model_is_loaded(tmp_path):
    with pytest.raises(CorruptModelError, match="line 2"):
        _template(tmp_path, "\n{% for %}")
