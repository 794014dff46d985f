"""Earlier calls as chat templates write them again: what a model would then write is read as the same calls."""

import asyncio
import json
from typing import Any

import pytest

from slurminfer.nodes.native.api.answers.reader import AnswerReader, Reading
from slurminfer.nodes.native.api.requests.messages import turns
from slurminfer.nodes.native.api.template.chat_template import ChatTemplate
from slurminfer.nodes.native.api.template.jinja import RenderCall, Template
from slurminfer.nodes.native.api.tools.families import FAMILIES, family_of

ARGUMENTS: dict[str, Any] = {"city": 'Bern "x"', "days": 3, "list": [1, "a"], "at": {"x": None}, "exact": True}
SCHEMA = {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps(ARGUMENTS)}}
CALLS = "{%- for c in messages[-1].tool_calls %}{%- set f = c.function %}{%- set a = f.arguments %}"
END = "{%- endfor %}"
# How templates of these families write calls, in short.
TEMPLATES = {
    "harmony": CALLS + """{{- " to=functions." + f.name + "<|channel|>commentary json<|message|>" }}
        {{- a | tojson + "<|call|>" }}""" + END,
    "gemma": """
        {%- macro value(v) %}
            {%- if v is string %}{{ '<|"|>' + v + '<|"|>' }}
            {%- elif v is boolean %}{{ 'true' if v else 'false' }}
            {%- elif v is none %}null
            {%- elif v is mapping %}{ {%- for k, w in v | dictsort %}{{ k }}:{{ value(w) }}{% endfor -%} }
            {%- elif v is sequence %}[{% for w in v %}{{ value(w) }}{{ ',' if not loop.last }}{% endfor %}]
            {%- else %}{{ v }}{% endif %}
        {%- endmacro %}""" + CALLS + """{{- '<|tool_call>call:' + f.name + '{' }}
        {%- for k, v in a | dictsort %}{{ k }}:{{ value(v) }}{{ ',' if not loop.last }}{% endfor -%}
        {{- '}<tool_call|>' }}""" + END,
    "lfm2": CALLS + """{{- '<|tool_call_start|>[' + f.name + '(' }}
        {%- for k, v in a.items() %}{{ k + '=' }}{{ "'" + v + "'" if v is string else v | string }}
        {%- if not loop.last %}, {% endif %}{% endfor %}{{ ')]<|tool_call_end|>' }}""" + END,
    "olmo3": "<function_calls>\n" + CALLS + """{{- f.name + '(' }}{% for k, v in a.items() %}{{ k + '=' + v | tojson }}
        {{- ', ' if not loop.last }}{% endfor %}{{ ')' }}""" + END + "\n</function_calls>",
    "pythonic": "[" + CALLS + """{{- f.name + '(' }}{% for k, v in a.items() %}{{ k + '=' + v | tojson }}
        {{- ', ' if not loop.last }}{% endfor %}{{ ')' }}""" + END + "]",
    "dsml": "<｜DSML｜function_calls>\n" + CALLS + """{{- '<｜DSML｜invoke name="' + f.name + '">\\n' }}
        {%- for k, v in a.items() %}
        {{- '<｜DSML｜parameter name="' + k + '" string="' + ('true' if v is string else 'false') + '">' }}
        {{- (v if v is string else v | tojson) + '</｜DSML｜parameter>\\n' }}{% endfor %}
        {{- '</｜DSML｜invoke>\\n' }}""" + END + "</｜DSML｜function_calls>",
    "qwen_coder": CALLS + """{{- '<tool_call>\\n<function=' + f.name + '>\\n' }}{% for k, v in a.items() %}
        {{- '<parameter=' + k + '>\\n' + (v if v is string else v | tojson) + '\\n</parameter>\\n' }}{% endfor %}
        {{- '</function>\\n</tool_call>' }}""" + END,
    "glm": CALLS + """{{- '<tool_call>' + f.name }}{% for k, v in a.items() %}{{ '<arg_key>' + k + '</arg_key>' }}
        {{- '<arg_value>' + (v if v is string else v | tojson) + '</arg_value>' }}{% endfor %}
        {{- '</tool_call>' }}""" + END,
    "kimi": "<|tool_calls_section_begin|>" + CALLS + """{{- '<|tool_call_begin|>functions.' + f.name + ':0' }}
        {{- '<|tool_call_argument_begin|>' + a | tojson + '<|tool_call_end|>' }}""" + END
        + "<|tool_calls_section_end|>",
    "internlm": CALLS + """{{- '<|action_start|><|plugin|>\\n{"name": "' + f.name + '", "parameters": ' }}
        {{- a | tojson + '}<|action_end|>' }}""" + END,
}  # fmt: skip


def call_of(messages: list[dict[str, Any]]) -> RenderCall:
    return RenderCall(
        messages=turns(messages), add_generation_prompt=False, continue_final_message=False, most_bytes=99_999
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_the_template_writes_is_read_as_the_same_call(name):
    text = Template(TEMPLATES[name], {}).render(call_of([{"role": "assistant", "tool_calls": [CALL]}]))
    family = next(family for family in FAMILIES if family.name == name)
    reader = AnswerReader(Reading(family=family, functions={"f": SCHEMA}), lambda: b"")
    parts = reader.push(text) + reader.flush()
    [call] = parts.calls
    assert (parts.text, call.name, json.loads(call.arguments)) == ("", "f", ARGUMENTS)


@pytest.mark.parametrize("name", ["gemma", "lfm2", "olmo3", "dsml", "glm", "kimi", "internlm"])
def test_the_family_is_that_of_such_a_template(name):
    family = family_of("auto", TEMPLATES[name], knows_tools=True)
    assert family is not None and family.name == name


@pytest.mark.process
@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "", "tool_calls": [CALL], "reasoning_content": "Hm"}, "Hm||f"),
        ({"content": "So.", "tool_calls": [CALL], "reasoning": "Hm"}, "|So.|f"),
        ({"content": "So.", "reasoning_content": "Hm"}, "Hm|So.|"),
    ],
)
def test_reasoning_has_the_name_that_the_template_knows(tmp_path, message, text):
    """Such as those of gpt-oss, which take no thinking beside content where there are calls."""
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.thinking }}|{{ m.content }}|"
        "{{ m.tool_calls[0].function.name if m.tool_calls }}{% endfor %}"
    )

    async def ask() -> str:
        template = ChatTemplate(tmp_path, {})
        await template.start()
        try:
            return await template.render(call_of([{"role": "assistant", **message}]))
        finally:
            await template.close()

    assert asyncio.run(ask()) == text
