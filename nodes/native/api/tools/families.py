"""How the model families write calls of tools, and which of them a chat template belongs to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...options import ToolParser
from .json_calls import JsonCalls, JsonFormat
from .pieces import CallParser
from .tag_calls import TagCalls, TagFormat
from .writing import (
    COHERE,
    DEEPSEEK,
    DEEPSEEK_R1,
    GLM,
    GLM_DENSE,
    HERMES,
    KIMI,
    LLAMA,
    MINIMAX,
    MISTRAL,
    MISTRAL_LIST,
    QWEN_CODER,
    SEED,
    Writing,
    listed,
)


@dataclass(frozen=True, slots=True)
class Family:
    """A way to write calls."""

    name: str
    models: str  # for the documentation
    signs: tuple[str, ...]  # a chat template with any of these is of this family
    format: JsonFormat | TagFormat
    id_length: int = 24  # of the ids that calls get
    words: tuple[str, ...] = ()  # other special tokens within calls
    writings: tuple[tuple[str, Writing], ...] = ()  # how calls are forced: the first one whose sign is in the template

    @property
    def markers(self) -> frozenset[str]:
        """What a parser must see of the text, also where a marker is a special token."""
        return frozenset((*self.format.begins, *self.format.ends, *self.words))

    def writing(self, template: str) -> Writing | None:
        """How a grammar makes a model write calls; None where there is none for this format."""
        return next((writing for sign, writing in self.writings if sign in template), None)

    def parser(self, functions: Mapping[str, Any]) -> CallParser:
        """A parser of one answer. `functions`: the schemas of the parameters of those that may be called."""
        if isinstance(self.format, TagFormat):
            return TagCalls(self.format, functions)
        return JsonCalls(self.format, functions)


_HERMES = JsonFormat(("<tool_call>",), ("</tool_call>",))
_MISTRAL_HEAD = re.compile(r"(?P<name>[^\s\[\]{}]+?)\s*(?:\[CALL_ID\]\s*(?P<id>[^\s\[\]{}]+)\s*)?(?:\[ARGS\])?")
_DEEPSEEK_HEAD = re.compile(
    r"(?:function\s*<｜tool▁sep｜>)?\s*(?P<name>[^\s<{}]+)\s*(?:<｜tool▁sep｜>)?\s*(?:```(?:json)?)?"
)
_KIMI_HEAD = re.compile(r"(?P<id>(?:functions\.)?(?P<name>[^\s<{}:]+)(?::\d+)?)\s*(?:<\|tool_call_argument_begin\|>)?")
_QWEN_PARAMETER = re.compile(r"<parameter=(?P<key>[^>\n]+)>")

# The first one whose sign is in a template counts: the more special ones come first.
FAMILIES: tuple[Family, ...] = (
    Family(
        "mistral", "Mistral, Ministral, Magistral, Devstral", ("[TOOL_CALLS]",),
        JsonFormat(("[TOOL_CALLS]",), head=_MISTRAL_HEAD),
        id_length=9, words=("[ARGS]", "[CALL_ID]"),
        writings=(("[ARGS]", MISTRAL), ("", MISTRAL_LIST)),
    ),
    Family(
        "deepseek", "DeepSeek-V3, -R1, -V3.1, and R1's distilled models", ("<｜tool▁calls▁begin｜>",),
        JsonFormat(
            ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"), ("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
            head=_DEEPSEEK_HEAD, between=" \t\r\n`}",
        ),
        words=("<｜tool▁sep｜>",),
        writings=(("```json", DEEPSEEK_R1), ("", DEEPSEEK)),
    ),
    Family(
        "kimi", "Kimi-K2", ("<|tool_calls_section_begin|>",),
        JsonFormat(
            ("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
            ("<|tool_call_end|>", "<|tool_calls_section_end|>"),
            head=_KIMI_HEAD, between=" \t\r\n}",
        ),
        words=("<|tool_call_argument_begin|>",),
        writings=(("", KIMI),),
    ),
    Family(
        "minimax", "MiniMax-M2", ("<minimax:tool_call>", '<invoke name="'),
        TagFormat(
            ("<minimax:tool_call>", '<invoke name="'), ("</minimax:tool_call>",),
            function=re.compile(r'(?:<minimax:tool_call>\s*)?<invoke name="(?P<name>[^">\n]+)"\s*>'),
            opening='<invoke name="',
            parameter=re.compile(r'<parameter name="(?P<key>[^">\n]+)"\s*>'), parameter_begin='<parameter name="',
            parameter_end="</parameter>", function_end="</invoke>",
        ),
        writings=(("", MINIMAX),),
    ),
    Family(
        "seed", "Seed-OSS", ("<seed:tool_call>",),
        TagFormat(
            ("<seed:tool_call>", "<function="), ("</seed:tool_call>",),
            function=re.compile(r"(?:<seed:tool_call>\s*)?<function=(?P<name>[^>\n]+)>"), opening="<function=",
            parameter=_QWEN_PARAMETER, parameter_begin="<parameter=",
            parameter_end="</parameter>", function_end="</function>",
        ),
        writings=(("", SEED),),
    ),
    Family(
        "glm", "GLM-4.5, -4.6, -4.7", ("<arg_key>",),
        TagFormat(
            ("<tool_call>",), ("</tool_call>",),
            function=re.compile(r"<tool_call>\s*(?P<name>[^\s<{]+)\s*(?=<)"), opening="",
            parameter=re.compile(r"<arg_key>(?P<key>[^<\n]+)</arg_key>\s*<arg_value>"), parameter_begin="<arg_key>",
            parameter_end="</arg_value>",
        ),
        writings=(("{function-name}<arg_key>", GLM_DENSE), ("", GLM)),
    ),
    Family(
        "qwen_coder", "Qwen3-Coder, Qwen3.5, Nemotron-3", ("<function=example_function_name>", "<parameter="),
        TagFormat(
            ("<tool_call>", "<function="), ("</tool_call>",),
            function=re.compile(r"(?:<tool_call>\s*)?<function=(?P<name>[^>\n]+)>"), opening="<function=",
            parameter=_QWEN_PARAMETER, parameter_begin="<parameter=",
            parameter_end="</parameter>", function_end="</function>",
        ),
        writings=(("", QWEN_CODER),),
    ),
    Family("hermes", "Qwen2.5, Qwen3, QwQ, Hermes, SmolLM3", ("<tool_call>",), _HERMES, writings=(("", HERMES),)),
    Family(
        "granite", "Granite 3, Phi-4-mini", ("<|tool_call|>",),
        JsonFormat(("<|tool_call|>",), ("<|/tool_call|>",)),
        writings=(("", listed("<|tool_call|>")),),
    ),
    Family(
        "nemotron", "Nemotron Nano v2", ("<TOOLCALL>",), JsonFormat(("<TOOLCALL>",), ("</TOOLCALL>",)),
        writings=(("", listed("<TOOLCALL>", "</TOOLCALL>")),),
    ),
    Family(
        "hunyuan", "Hunyuan-A13B, Jamba", ("<tool_calls>",), JsonFormat(("<tool_calls>",), ("</tool_calls>",)),
        writings=(("", listed("<tool_calls>", "</tool_calls>")),),
    ),
    Family(
        "cohere", "Command R7B, Command A", ("<|START_ACTION|>",),
        JsonFormat(("<|START_ACTION|>",), ("<|END_ACTION|>",)),
        writings=(("", COHERE),),
    ),
    Family(
        "llama", "Llama 3.1, 3.2, 3.3", ("<|python_tag|>", '"parameters": '),
        JsonFormat(("<|python_tag|>",), is_bare=True),
        writings=(("", LLAMA),),
    ),
)  # fmt: skip
FORCED = Family("forced", "answers that must be calls", (), JsonFormat((), is_bare=True))


def family_of(parser: ToolParser, template: str, *, knows_tools: bool) -> Family | None:
    """The family that the option names, or that `template` belongs to; None: calls are not looked for.

    `knows_tools`: the template writes tools itself; else they are written as Hermes wants them.
    """
    named = {family.name: family for family in FAMILIES}
    if parser != "auto":
        return named.get(parser)
    if not knows_tools:
        return named["hermes"]
    return next((f for f in FAMILIES if any(sign in template for sign in f.signs)), None)
