"""How each family writes calls. Special tokens stand in it by their names."""

from collections.abc import Mapping
from typing import Any

from ....grammar.constraint import Constraint, Regex, Row
from .literals import GemmaStyle, python_arguments
from .tags import TagStyle
from .writing import NAME, NAMES, Writing, json_arguments


def _json_object(name: str = "name", arguments: str = "arguments") -> str:
    return f'{{"{name}": "{NAME}", "{arguments}": '


OBJECT = _json_object()
HERMES = Writing(f"<tool_call>\n{OBJECT}", "}\n</tool_call>", "<tool_call>", "\n")
_KEYS = "name|tool_name|arguments|parameters|args|function|type|id|index|tool_call_id"  # of a CallObject
_BARE_OPENING = rf'[ \t\r\n]*(?:\[[ \t\r\n]*)?\{{[ \t\r\n,]*"(?:(?:{_KEYS})"|[^"\\]*\\)'
LLAMA = Writing(
    _json_object(arguments="parameters"),
    "}",
    is_single=True,
    opening=_BARE_OPENING,
    markers=("<|python_tag|>", "<|python_start|>"),
)
MISTRAL = Writing(f"[TOOL_CALLS]{NAME}[ARGS]", "", "[TOOL_CALLS]")
MISTRAL_LIST = Writing(OBJECT, "}", "[TOOL_CALLS]", ", ", before="[TOOL_CALLS] [", after="]")
DEEPSEEK = Writing(
    f"<｜tool▁call▁begin｜>{NAME}<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁begin｜>",
    before="<｜tool▁calls▁begin｜>", after="<｜tool▁calls▁end｜>",
)  # fmt: skip
DEEPSEEK_R1 = Writing(
    f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{NAME}\n```json\n", "\n```<｜tool▁call▁end｜>",
    "<｜tool▁calls▁begin｜>", "\n", before="<｜tool▁calls▁begin｜>", after="<｜tool▁calls▁end｜>",
)  # fmt: skip
COHERE = Writing(
    f'{{"tool_call_id": "0", {_json_object("tool_name", "parameters")[1:]}', "}", "<|START_ACTION|>", ", ",
    before="<|START_ACTION|>[", after="]<|END_ACTION|>",
)  # fmt: skip
BARE = Writing(OBJECT, "}", separator=", ", before="[", after="]")  # where nothing is known of the model
BARE_SINGLE = Writing(OBJECT, "}", is_single=True)


_QWEN_STYLE = TagStyle("<parameter=KEY>", "</parameter>", around="\n", after="\n")
QWEN_CODER = Writing(
    f"<tool_call>\n<function={NAME}>\n", "</function>\n</tool_call>", "<tool_call>", "\n",
    arguments=_QWEN_STYLE.arguments, inner="<function=", inner_end="</function>",
)  # fmt: skip
SEED = Writing(
    f"<function={NAME}>\n", "</function>\n", "<seed:tool_call>", before="<seed:tool_call>\n",
    after="</seed:tool_call>", arguments=TagStyle("<parameter=KEY>", "</parameter>", after="\n").arguments,
    inner="<function=", inner_end="</function>",
)  # fmt: skip
MINIMAX = Writing(
    f'<invoke name="{NAME}">\n', "</invoke>\n", "<minimax:tool_call>", before="<minimax:tool_call>\n",
    after="</minimax:tool_call>", arguments=TagStyle('<parameter name="KEY">', "</parameter>", after="\n").arguments,
    inner='<invoke name="', inner_end="</invoke>",
)  # fmt: skip
GLM = Writing(
    f"<tool_call>{NAME}\n", "</tool_call>", "<tool_call>", "\n",
    arguments=TagStyle("<arg_key>KEY</arg_key>\n<arg_value>", "</arg_value>", after="\n").arguments,
)  # fmt: skip
GLM_DENSE = Writing(
    f"<tool_call>{NAME}", "</tool_call>", "<tool_call>",
    arguments=TagStyle("<arg_key>KEY</arg_key><arg_value>", "</arg_value>").arguments,
)  # fmt: skip


def dsml(around: str) -> Writing:
    """DeepSeek's markup language. `around`: the tag around all calls."""
    style = TagStyle('<｜DSML｜parameter name="KEY" string="IS_STRING">', "</｜DSML｜parameter>", after="\n")
    begin = f"<｜DSML｜{around}>"
    return Writing(
        f'<｜DSML｜invoke name="{NAME}">\n', "</｜DSML｜invoke>\n", begin, before=f"{begin}\n",
        after=f"</｜DSML｜{around}>", arguments=style.arguments,
        inner='<｜DSML｜invoke name="', inner_end="</｜DSML｜invoke>",
    )  # fmt: skip


def _numbered(schema: Mapping[str, Any]) -> Constraint:
    return Row([Regex("[0-9]{1,4}"), "<|tool_call_argument_begin|>", json_arguments(schema)])


KIMI = Writing(
    f"<|tool_call_begin|>functions.{NAME}:", "<|tool_call_end|>", "<|tool_calls_section_begin|>",
    before="<|tool_calls_section_begin|>", after="<|tool_calls_section_end|>", arguments=_numbered,
)  # fmt: skip


def listed(begin: str, end: str = "") -> Writing:
    """A list of objects after a marker."""
    return Writing(OBJECT, "}", begin, ", ", before=f"{begin}[", after=f"]{end}")


INTERNLM = Writing(
    f"<|action_start|><|plugin|>\n{_json_object(arguments='parameters')}", "}<|action_end|>",
    "<|action_start|><|plugin|>",
)  # fmt: skip
FUNCTOOLS = Writing(OBJECT, "}", "functools[", ", ", before="functools[", after="]")
LONGCAT = Writing(f"<longcat_tool_call>\n{OBJECT}", "}\n</longcat_tool_call>", "<longcat_tool_call>", "\n")
PYTHONIC = Writing(
    f"{NAME}(", ")", separator=", ", before="[", after="]", arguments=python_arguments,
    opening=rf"[ \t\r\n]*\[[ \t\r\n,;\[\]]*(?:{NAMES})[ \t\r\n]*\(", markers=("<|python_start|>",),
)  # fmt: skip
TOOL_CODE = Writing(
    f"{NAME}(", ")", "```tool_code", "\n", before="```tool_code\n", after="\n```", arguments=python_arguments
)
LFM2 = Writing(
    f"{NAME}(", ")", "<|tool_call_start|>", ", ", before="<|tool_call_start|>[", after="]<|tool_call_end|>",
    arguments=python_arguments,
)  # fmt: skip
OLMO3 = Writing(
    f"{NAME}(", ")", "<function_calls>", "\n", before="<function_calls>\n", after="\n</function_calls>",
    arguments=python_arguments,
)  # fmt: skip
GEMMA = Writing(f"<|tool_call>call:{NAME}{{", "}<tool_call|>", "<|tool_call>", arguments=GemmaStyle('<|"|>').arguments)
FUNCTION_GEMMA = Writing(
    f"<start_function_call>call:{NAME}{{", "}<end_function_call>", "<start_function_call>",
    arguments=GemmaStyle("<escape>").arguments,
)  # fmt: skip
