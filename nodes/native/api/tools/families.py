"""How the model families write calls of tools, and which of them a chat template belongs to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...options import ToolParser
from .harmony import Harmony, HarmonyFormat
from .json_calls import JsonCalls, JsonFormat
from .literal_calls import LiteralCalls, LiteralFormat, braced, pythonic
from .literals import FUNCTION_GEMMA, GEMMA
from .pieces import CallParser
from .tag_calls import TagCalls, TagFormat
from .writing import formats as written
from .writing.harmony import HARMONY
from .writing.writing import Writing


@dataclass(frozen=True, slots=True)
class Family:
    """A way to write calls."""

    name: str
    models: str  # for the documentation
    signs: tuple[str, ...]  # a chat template with any of these is of this family
    format: JsonFormat | TagFormat | LiteralFormat | HarmonyFormat
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

    @property
    def frames(self) -> bool:
        """Whether all answers have to be read, also without tools."""
        return isinstance(self.format, HarmonyFormat)

    def parser(self, functions: Mapping[str, Any], head: str = "") -> CallParser:
        """A parser of one answer.

        Args:
            functions: the schemas of the parameters of those that may be called.
            head: of a message that the prompt ends with, where the family's answers are framed.
        """
        if isinstance(self.format, HarmonyFormat):
            return Harmony(functions, head)
        if isinstance(self.format, LiteralFormat):
            return LiteralCalls(self.format, functions)
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
        "harmony", "gpt-oss", ("<|channel|>analysis", "<|start|>assistant<|channel|>"), HarmonyFormat(),
        writings=(("", HARMONY),),
    ),
    Family(
        "gemma", "Gemma 4", ("<|tool_call>call:",), braced("<|tool_call>", "<tool_call|>", GEMMA),
        words=('<|"|>',), writings=(("", written.GEMMA),),
    ),
    Family(
        "function_gemma", "FunctionGemma", ("<start_function_call>",),
        braced("<start_function_call>", "<end_function_call>", FUNCTION_GEMMA),
        words=("<escape>",), writings=(("", written.FUNCTION_GEMMA),),
    ),
    Family(
        "lfm2", "LFM2, LFM2.5", ("<|tool_call_start|>", "<|tool_list_start|>"),
        pythonic(("<|tool_call_start|>",), ("<|tool_call_end|>",)),
        writings=(("", written.LFM2),),
    ),
    Family(
        "olmo3", "OLMo 3", ("<function_calls>",), pythonic(("<function_calls>",), ("</function_calls>",)),
        writings=(("", written.OLMO3),),
    ),
    Family(
        "dsml", "DeepSeek-V3.2, -V4", ("｜DSML｜",),
        TagFormat(
            ("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>", '<｜DSML｜invoke name="'),
            ("</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"),
            function=re.compile(
                r'(?:<｜DSML｜(?:function|tool)_calls>\s*)?<｜DSML｜invoke name="(?P<name>[^">\n]+)"\s*>'
            ),
            opening='<｜DSML｜invoke name="',
            parameter=re.compile(
                r'<｜DSML｜parameter name="(?P<key>[^">\n]+)"(?:\s+string="(?P<string>true|false)")?\s*>'
            ),
            parameter_begin='<｜DSML｜parameter name="', parameter_end="</｜DSML｜parameter>",
            function_end="</｜DSML｜invoke>",
        ),
        words=("｜DSML｜",),
        writings=(("}}tool_calls>", written.dsml("tool_calls")), ("｜DSML｜tool_calls>", written.dsml("tool_calls")),
                  ("", written.dsml("function_calls"))),
    ),
    Family(
        "internlm", "InternLM 2.5, InternLM 3", ("<|plugin|>",),
        JsonFormat(("<|action_start|><|plugin|>",), ("<|action_end|>",)),
        words=("<|action_start|>", "<|plugin|>"), writings=(("", written.INTERNLM),),
    ),
    Family(
        "longcat", "LongCat-Flash", ("<longcat_tool_call>",),
        JsonFormat(("<longcat_tool_call>",), ("</longcat_tool_call>",)), writings=(("", written.LONGCAT),),
    ),
    Family(
        "mistral", "Mistral, Ministral, Magistral, Devstral", ("[TOOL_CALLS]",),
        JsonFormat(("[TOOL_CALLS]",), head=_MISTRAL_HEAD),
        id_length=9, words=("[ARGS]", "[CALL_ID]"),
        writings=(("[ARGS]", written.MISTRAL), ("", written.MISTRAL_LIST)),
    ),
    Family(
        "deepseek", "DeepSeek-V3, -R1, -V3.1, and R1's distilled models", ("<｜tool▁calls▁begin｜>",),
        JsonFormat(
            ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"), ("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
            head=_DEEPSEEK_HEAD, between=" \t\r\n`}",
        ),
        words=("<｜tool▁sep｜>",),
        writings=(("```json", written.DEEPSEEK_R1), ("", written.DEEPSEEK)),
    ),
    Family(
        "kimi", "Kimi-K2", ("<|tool_calls_section_begin|>",),
        JsonFormat(
            ("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
            ("<|tool_call_end|>", "<|tool_calls_section_end|>"),
            head=_KIMI_HEAD, between=" \t\r\n}",
        ),
        words=("<|tool_call_argument_begin|>",),
        writings=(("", written.KIMI),),
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
        writings=(("", written.MINIMAX),),
    ),
    Family(
        "seed", "Seed-OSS", ("<seed:tool_call>",),
        TagFormat(
            ("<seed:tool_call>", "<function="), ("</seed:tool_call>",),
            function=re.compile(r"(?:<seed:tool_call>\s*)?<function=(?P<name>[^>\n]+)>"), opening="<function=",
            parameter=_QWEN_PARAMETER, parameter_begin="<parameter=",
            parameter_end="</parameter>", function_end="</function>",
        ),
        writings=(("", written.SEED),),
    ),
    Family(
        "glm", "GLM-4.5, -4.6, -4.7", ("<arg_key>",),
        TagFormat(
            ("<tool_call>",), ("</tool_call>",),
            function=re.compile(r"<tool_call>\s*(?P<name>[^\s<{]+)\s*(?=<)"), opening="",
            parameter=re.compile(r"<arg_key>(?P<key>[^<\n]+)</arg_key>\s*<arg_value>"), parameter_begin="<arg_key>",
            parameter_end="</arg_value>",
        ),
        writings=(("{function-name}<arg_key>", written.GLM_DENSE), ("", written.GLM)),
    ),
    Family(
        "qwen_coder", "Qwen3-Coder, Qwen3.5, Nemotron-3", ("<function=example_function_name>", "<parameter="),
        TagFormat(
            ("<tool_call>", "<function="), ("</tool_call>",),
            function=re.compile(r"(?:<tool_call>\s*)?<function=(?P<name>[^>\n]+)>"), opening="<function=",
            parameter=_QWEN_PARAMETER, parameter_begin="<parameter=",
            parameter_end="</parameter>", function_end="</function>",
        ),
        writings=(("", written.QWEN_CODER),),
    ),
    Family(
        "hermes", "Qwen2.5, Qwen3, QwQ, Hermes, SmolLM3", ("<tool_call>",), _HERMES, writings=(("", written.HERMES),)
    ),
    Family(
        "granite", "Granite 3, Phi-4-mini", ("<|tool_call|>", "functools["),
        JsonFormat(("<|tool_call|>", "functools["), ("<|/tool_call|>",)),
        writings=(("functools[", written.FUNCTOOLS), ("", written.listed("<|tool_call|>"))),
    ),
    Family(
        "nemotron", "Nemotron Nano v2", ("<TOOLCALL>",), JsonFormat(("<TOOLCALL>",), ("</TOOLCALL>",)),
        writings=(("", written.listed("<TOOLCALL>", "</TOOLCALL>")),),
    ),
    Family(
        "hunyuan", "Hunyuan-A13B, Jamba", ("<tool_calls>",), JsonFormat(("<tool_calls>",), ("</tool_calls>",)),
        writings=(("", written.listed("<tool_calls>", "</tool_calls>")),),
    ),
    Family(
        "cohere", "Command R7B, Command A", ("<|START_ACTION|>",),
        JsonFormat(("<|START_ACTION|>",), ("<|END_ACTION|>",)),
        writings=(("", written.COHERE),),
    ),
    Family(
        "tool_code", "Gemma 3, with a template for tools", ("```tool_code",),
        pythonic(("```tool_code",), ("```",), is_statement=True), writings=(("", written.TOOL_CODE),),
    ),
    Family(
        "pythonic", "Llama 4, Llama 3.2 and Gemma 3 with pythonic templates, ToolACE",
        ("[func_name1(", "tool_call.name + '('", 'tool_call.name + "("'),
        pythonic(("<|python_start|>",), ("<|python_end|>",), is_bare=True), writings=(("", written.PYTHONIC),),
    ),
    Family(
        "llama", "Llama 3.1, 3.2, 3.3, and Llama 4 with JSON", ("<|python_tag|>", '"parameters": '),
        JsonFormat(("<|python_tag|>", "<|python_start|>"), ("<|python_end|>",), is_bare=True),
        writings=(("", written.LLAMA),),
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
