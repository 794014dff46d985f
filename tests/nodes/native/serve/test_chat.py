"""Chat templates render as transformers renders them, and refuse what they refuse with a reason."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from slurminfer.core.errors import CorruptModelError
from slurminfer.nodes.native.api.template.chat_template import ChatTemplate, find_source
from slurminfer.nodes.native.api.template.jinja import ChatError, PromptTooLargeError, RenderCall, Template

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


TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def _template(source: str) -> Template:
    return Template(source, TOKENS)


def _render(template: Template, messages=CHAT, *, begin=False, go_on=False, most_bytes=10_000) -> str:
    call = RenderCall(
        messages=messages, add_generation_prompt=begin, continue_final_message=go_on, most_bytes=most_bytes
    )
    return template.render(call)


@pytest.mark.parametrize("source", [LLAMA_2, EVERYTHING])
@pytest.mark.parametrize("begin", [True, False])
def test_templates_render_as_in_transformers(source, begin):
    from transformers.utils.chat_template_utils import render_jinja_template

    tokens: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>"}
    texts = render_jinja_template([CHAT], chat_template=source, add_generation_prompt=begin, **tokens)[0]
    [expected] = list(texts)
    assert _render(_template(source), begin=begin) == expected


def test_a_continued_message_ends_the_prompt_and_keeps_its_spaces():
    text = _render(_template(LLAMA_2), go_on=True)
    assert text.endswith("[/INST]\n Hello  ") or text.endswith("[/INST] Hello  ")
    empty = [*CHAT[:-1], {"role": "assistant", "content": ""}]
    assert _render(_template(LLAMA_2), empty, go_on=True) == text.removesuffix("Hello  ")


def test_a_message_that_the_template_leaves_out_cannot_be_continued():
    with pytest.raises(ChatError, match="leaves the final message out"):
        _render(_template("{{ messages[0].content }}"), go_on=True)


def test_the_templates_own_exceptions_reach_the_client():
    with pytest.raises(ChatError, match="roles must alternate"):
        _render(_template(LLAMA_2), [CHAT[1], CHAT[1]])


@pytest.mark.parametrize(
    "source", ["{{ messages.nothing.there }}", "{{ messages.__class__.__mro__ }}", "{{ 1 + 'a' }}"]
)
def test_a_template_that_fails_or_reaches_out_of_its_sandbox_is_refused(source):
    with pytest.raises(ChatError):
        _render(_template(source))


def test_dates_can_be_written():
    assert _render(_template("{{ strftime_now('%Y') }}")).startswith("20")


def test_a_templates_other_variables_are_given():
    call = RenderCall(
        messages=CHAT, add_generation_prompt=False, continue_final_message=False, most_bytes=99,
        variables={"enable_thinking": True},
    )  # fmt: skip
    text = _template("{{ enable_thinking }} {{ bos_token }}").render(call)
    assert text == "True <s>"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ 1 + 'a' }}", "TypeError: "),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ {}.missing.name }}", "'dict object' has no attribute 'missing'"),
        ("{{ raise_exception('two\nlines') }}", "two lines"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError: "),
        ("{{ range(10 ** 9) }}", "OverflowError: "),
        ("{{ 'a' * 10 ** 15 }}", "MemoryError"),
    ],
)
def test_whatever_a_template_raises_is_one_line_for_the_client(source, reason):
    with pytest.raises(ChatError) as refused:
        _render(_template("{% if messages %}" + source + "{% endif %}"))
    prefix = "the chat template refuses these messages: "
    assert str(refused.value).startswith(prefix + reason)
    assert "\n" not in str(refused.value)


def test_a_prompt_of_more_bytes_than_fit_is_refused_while_it_is_written():
    endless = _template("{% for a in range(10000) %}{% for b in range(10000) %}{{ 'ä' }}{% endfor %}{% endfor %}")
    with pytest.raises(PromptTooLargeError, match="more than 100 bytes"):
        _render(endless, most_bytes=100)
    assert _render(_template("{{ 'ä' * 50 }}"), most_bytes=100) == "ä" * 50


def test_of_several_templates_the_default_is_taken(tmp_path):
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "chat"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert find_source(tmp_path) == "chat"


@asynccontextmanager
async def _started(directory: Path, source: str | None, **limits: Any) -> AsyncIterator[ChatTemplate]:
    if source is not None:
        (directory / "chat_template.jinja").write_text(source, encoding="utf-8")
    template = ChatTemplate(directory, TOKENS, **limits)
    try:
        await template.start()
        yield template
    finally:
        await template.close()


async def _ask(template: ChatTemplate, *contents: str) -> str:
    messages = [{"role": "user", "content": content} for content in contents]
    call = RenderCall(messages=messages, add_generation_prompt=True, continue_final_message=False, most_bytes=10**7)
    return await template.render(call)


def test_a_model_without_a_template_says_so(tmp_path):
    async def run() -> None:
        async with _started(tmp_path, None) as template:
            with pytest.raises(ChatError, match="no chat template"):
                await _ask(template, "hi")

    asyncio.run(run())


@pytest.mark.process
def test_a_broken_template_is_found_when_the_model_is_loaded(tmp_path):
    async def run() -> None:
        with pytest.raises(CorruptModelError, match="line 2"):
            async with _started(tmp_path, "\n{% for %}"):
                pass

    asyncio.run(run())


# By the first message: never ends, fills memory in small steps and at once, kills its process.
HOSTILE = """\
{%- set do = messages[0].content -%}
{%- if do == 'loop' %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif -%}
{%- if do == 'double' %}{% set n = namespace(s=do) %}{% for a in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}
{%- endif -%}
{%- if do == 'pad' %}{{ do | center((messages | length) * 10 ** 12) }}{% endif -%}
{%- if do == 'number' %}{{ (messages | length + 9) ** (10 ** 9) }}{% endif -%}
{{ do }}"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("loop", "takes more than 0.3 s of CPU time"),
        ("double", "MemoryError"),
        ("pad", "MemoryError"),
        ("number", "takes more than 0.3 s"),
    ],
)
def test_a_template_that_never_ends_or_fills_memory_fails_one_prompt_and_the_next_is_rendered(
    tmp_path, content, reason
):
    async def run() -> None:
        async with _started(tmp_path, HOSTILE, cpu_seconds=0.3, memory_bytes=200 << 20) as template:
            with pytest.raises(ChatError, match=reason):
                await _ask(template, content)
            assert await _ask(template, "hi") == "hi"

    asyncio.run(run())


@pytest.mark.process
def test_small_prompts_pass_a_big_one_and_a_client_that_leaves_disturbs_nobody(tmp_path):
    async def run() -> None:
        async with _started(tmp_path, HOSTILE, cpu_seconds=2.0) as template:
            big = asyncio.create_task(_ask(template, "loop", "x" * 300_000))
            gone = asyncio.create_task(_ask(template, "gone"))
            await asyncio.sleep(0)
            gone.cancel()
            assert await _ask(template, "hi") == "hi"
            assert not big.done()
            with pytest.raises(ChatError, match="takes more than 2 s of CPU time"):
                await big
            assert await _ask(template, "x" * 300_000) == "x" * 300_000

    asyncio.run(run())


@pytest.mark.process
def test_a_rendering_process_outlives_the_signals_of_a_job_and_is_started_again_after_others(tmp_path):
    async def run() -> None:
        async with _started(tmp_path, "{{ messages[0].content }}") as template:
            assert template._lanes is not None
            process = template._lanes[0]._process
            assert process is not None
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
                process.send_signal(number)
            assert await _ask(template, "hi") == "hi"
            assert template._lanes[0]._process is process
            process.kill()
            await process.wait()
            assert await _ask(template, "hi") == "hi"

    asyncio.run(run())


@pytest.mark.process
def test_a_prompt_whose_process_is_killed_is_rendered_by_a_new_one_once(tmp_path):
    async def run() -> None:
        async with _started(tmp_path, HOSTILE, cpu_seconds=60) as template:
            assert await _kill_under(template, "hi", times=1) == "hi"
            with pytest.raises(ChatError, match="signal 9"):
                await _kill_under(template, "loop", times=2)

    asyncio.run(run())


async def _kill_under(template: ChatTemplate, content: str, *, times: int) -> str:
    """The prompt, while so many processes that are at work on it are killed."""
    assert template._lanes is not None
    lane = template._lanes[0]
    process = lane._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    asking = asyncio.create_task(_ask(template, content))
    while not lane._lock.locked():
        await asyncio.sleep(0)
    for _ in range(times):
        process = lane._process
        assert process is not None
        process.kill()
        while lane._process in (None, process) and not asking.done():
            await asyncio.sleep(0)
    return await asking


@pytest.mark.process
def test_a_template_does_not_see_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_API_KEY", "secret")
    monkeypatch.setenv("SLURMINFER_RANK_SECRET", "a secret too")

    async def run() -> None:
        async with _started(tmp_path, "{{ messages[0].content }}") as template:
            assert template._lanes is not None and template._lanes[0]._process is not None
            environment = Path(f"/proc/{template._lanes[0]._process.pid}/environ").read_bytes()
            assert b"PATH=" in environment and b"secret" not in environment

    asyncio.run(run())
