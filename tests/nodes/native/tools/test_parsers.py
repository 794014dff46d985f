"""Calls of tools in the formats of all families, whole and in any pieces."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.nodes.native.api.answers.reader import AnswerReader, Parts, Reading
from slurminfer.nodes.native.api.tools.families import FAMILIES, FORCED, Family

BY_NAME = {family.name: family for family in (*FAMILIES, FORCED)}
SCHEMAS: dict[str, Any] = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "units": {"enum": ["C", "F"]},
            "precise": {"type": "boolean"},
            "where": {"anyOf": [{"type": "object"}, {"type": "null"}]},
            "unit": {"$ref": "#/$defs/unit"},
        },
        "$defs": {"unit": {"type": "string"}},
    },
    "ping": {},
}
ARGUMENTS = {"city": 'Zürich "<b>" \\ {', "days": 3, "precise": True, "where": {"x": [1, "}"]}}
JSON = json.dumps(ARGUMENTS, ensure_ascii=False)
WEATHER: tuple[str, Any] = ("get_weather", ARGUMENTS)
PING: tuple[str, Any] = ("ping", {})


def _tags(open: str, argument: str, close: str) -> str:
    texts = {"city": ARGUMENTS["city"], "days": "3", "precise": "true", "where": '{"x": [1, "}"]}'}
    return open + "".join(argument.format(key, value) for key, value in texts.items()) + close


_HERMES = f'<tool_call>\n{{"name": "get_weather", "arguments": {JSON}}}\n</tool_call>'
_QWEN = _tags("<function=get_weather>\n", "<parameter={}>\n{}\n</parameter>\n", "</function>")
_MINIMAX = _tags('<invoke name="get_weather">\n', '<parameter name="{}">{}</parameter>\n', "</invoke>")
_GLM = _tags("<tool_call>get_weather\n", "<arg_key>{}</arg_key>\n<arg_value>{}</arg_value>\n", "</tool_call>")
_OBJECT = f'{{"name": "get_weather", "arguments": {JSON}}}'
_CALL_V3 = f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{JSON}\n```<｜tool▁call▁end｜>"
_PING_V3 = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>ping\n```json\n{}\n```<｜tool▁call▁end｜>"
_KIMI = f"<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{JSON}<|tool_call_end|>"
_DSML = _tags("", '<｜DSML｜parameter name="{}" string="STRING">{}</｜DSML｜parameter>\n', "")
_DSML = _DSML.replace("STRING", "true", 1).replace("STRING", "false")
_GEMMA = 'city:QZürich "<b>" \\ {Q,days:3,precise:true,where:{x:[1,Q}Q]}'
_PYTHON = """city='Zürich "<b>" \\\\ {', days = 3, precise=True, where={"x": [1, '}']}"""
# Family, answer, text, calls.
ANSWERS: list[tuple[str, str, str, list[Any]]] = [
    ("hermes", _HERMES, "", [WEATHER]),
    ("hermes", f"Let me see.\n\n{_HERMES}", "Let me see.", [WEATHER]),
    ("hermes", f'{_HERMES}\n<tool_call>\n{{"name": "ping"}}\n</tool_call>', "", [WEATHER, PING]),
    ("hermes", f'<tool_call>{{"arguments": {JSON}, "name": "get_weather"}}</tool_call>', "", [WEATHER]),
    ("hermes", f'<tool_call>{{"name": "ping", "arguments": null}}</tool_call>{_HERMES}', "", [PING, WEATHER]),
    ("hermes", f'<tool_call>{{"name": "get_weather", "arguments": {json.dumps(JSON)}}}</tool_call>', "", [WEATHER]),
    ("hermes", f'<tool_call>{{"type": "function", "function": {_OBJECT}}}</tool_call>', "", [WEATHER]),
    ("hermes", "<tool_call>" + _OBJECT + "}</tool_call> Done.", "Done.", [WEATHER]),
    ("llama", f'{{"name": "get_weather", "parameters": {JSON}}}', "", [WEATHER]),
    ("llama", f'<|python_tag|>{{"name": "get_weather", "parameters": {JSON}}}; {{"name": "ping", "parameters": {{}}}}',
     "", [WEATHER, PING]),
    ("mistral", f'[TOOL_CALLS] [{_OBJECT}, {{"name": "ping", "arguments": {{}}}}]', "", [WEATHER, PING]),
    ("mistral", f"[TOOL_CALLS]get_weather[ARGS]{JSON}[TOOL_CALLS]ping[ARGS]{{}}", "", [WEATHER, PING]),
    ("mistral", f"Wait.[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{JSON}", "Wait.", [WEATHER]),
    ("mistral", f"[TOOL_CALLS]get_weather{JSON}", "", [WEATHER]),
    ("deepseek", f"<｜tool▁calls▁begin｜>{_CALL_V3}\n{_PING_V3}<｜tool▁calls▁end｜>", "", [WEATHER, PING]),
    ("deepseek", "I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>" + JSON +
     "<｜tool▁call▁end｜><｜tool▁call▁begin｜>ping<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     "I look.", [WEATHER, PING]),
    ("kimi", f"<|tool_calls_section_begin|>{_KIMI}<|tool_calls_section_end|>", "", [WEATHER]),
    ("qwen_coder", f"Hm.\n<tool_call>\n{_QWEN}\n</tool_call>\n<tool_call>\n<function=ping>\n</function>\n</tool_call>",
     "Hm.", [WEATHER, PING]),
    ("qwen_coder", _QWEN, "", [WEATHER]),
    ("seed", f"<seed:tool_call>\n{_QWEN}\n</seed:tool_call>", "", [WEATHER]),
    ("minimax", f'<minimax:tool_call>\n{_MINIMAX}\n<invoke name="ping">\n</invoke>\n</minimax:tool_call>',
     "", [WEATHER, PING]),
    ("glm", f"{_GLM}\n<tool_call>ping\n</tool_call>", "", [WEATHER, PING]),
    ("granite", f"<|tool_call|>[{_OBJECT}]", "", [WEATHER]),
    ("granite", f'functools[{_OBJECT}, {{"name": "ping", "arguments": {{}}}}]', "", [WEATHER, PING]),
    ("nemotron", f"<TOOLCALL>[{_OBJECT}]</TOOLCALL>", "", [WEATHER]),
    ("hunyuan", f"<tool_calls>[{_OBJECT}]</tool_calls>", "", [WEATHER]),
    ("cohere", '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "get_weather", "parameters": ' + JSON +
     "}]<|END_ACTION|>", "", [WEATHER]),
    ("harmony", "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>commentary "
     f"to=functions.get_weather <|constrain|>json<|message|>{JSON}<|call|>", "Hm", [WEATHER]),
    ("harmony", "assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.ping<|channel|>"
     "commentary json<|message|><|call|><|start|>assistant<|channel|>final<|message|>Done.<|return|>",
     "I look.\nDone.", [PING]),
    ("harmony", "<|channel|>final<|message|>2 < 3 <|b|>", "2 < 3 <|b|>", []),
    ("harmony", "<|start|>assistant<|channel|>final<|message|>Yes", "Yes", []),
    ("dsml", "Hm.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"get_weather\">\n" + _DSML + "</｜DSML｜invoke>\n"
     "<｜DSML｜invoke name=\"ping\">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>", "Hm.", [WEATHER, PING]),
    ("dsml", '<｜DSML｜tool_calls><｜DSML｜invoke name="f"><｜DSML｜parameter name="a" string="true">5'
     '</｜DSML｜parameter><｜DSML｜parameter name="b" string="false">5</｜DSML｜parameter></｜DSML｜invoke>'
     "</｜DSML｜tool_calls>",
     "", [("f", {"a": "5", "b": 5})]),
    ("internlm", f'<|action_start|><|plugin|>\n{{"name": "get_weather", "parameters": {JSON}}}<|action_end|>', "",
     [WEATHER]),
    ("longcat", f"<longcat_tool_call>\n{_OBJECT}\n</longcat_tool_call>", "", [WEATHER]),
    ("gemma", "<|tool_call>call:get_weather{" + _GEMMA.replace("Q", '<|"|>') + "}<tool_call|><|tool_call>call:ping{}"
     "<tool_call|>", "", [WEATHER, PING]),
    ("gemma", '<|tool_call>call:f{<|"|>a<|"|>:[],b:<|"|><|"|>,c:-1.50}<tool_call|>', "",
     [("f", {"a": [], "b": "", "c": -1.5})]),
    ("function_gemma", "<start_function_call>call:get_weather{" + _GEMMA.replace("Q", "<escape>") +
     "}<end_function_call>", "", [WEATHER]),
    ("pythonic", f"[get_weather({_PYTHON}), ping()]", "", [WEATHER, PING]),
    ("pythonic", f"<|python_start|>[get_weather({_PYTHON})]<|python_end|>", "", [WEATHER]),
    ("pythonic", "[ping()]\nThat is all.", "\nThat is all.", [PING]),
    ("lfm2", f"<|tool_call_start|>[get_weather({_PYTHON}), ping()]<|tool_call_end|>Wait.", "Wait.", [WEATHER, PING]),
    ("olmo3", f"<function_calls>\nget_weather({_PYTHON})\nping()\n</function_calls>", "", [WEATHER, PING]),
    ("tool_code", f"So:\n```tool_code\nprint(get_weather({_PYTHON}))\nx = ping()\n```", "So:", [WEATHER, PING]),
    ("forced", f'[{_OBJECT}, {{"name": "ping", "arguments": {{}}}}]', "", [WEATHER, PING]),
]  # fmt: skip
FEW = 40  # examples of hypothesis for each answer: there are many answers, and all formats share the code that cuts
# No calls: the text stays.
WORDS = [
    ("hermes", "Use <tool> or <b>, a < b."),
    ("hermes", "<tool_call>I do not know how</tool_call> sorry"),
    ("hermes", '<tool_call>{"city": "Bern"}</tool_call>'),
    ("hermes", '<tool_call>{"name": "get_wea'),
    ("hermes", "Before <tool_c"),
    ("llama", '{"city": "Bern", "name": "get_weather"}'),
    ("llama", '{"name": "somebody", "parameters": {}}'),
    ("llama", "[1, 2, 3]"),
    ("llama", "  { and no JSON"),
    ("llama", "["),
    ("mistral", "[TOOL_CALLS] I think so. {"),
    ("mistral", "[TOOL_CALLS]" + "x" * 600 + "{}"),
    ("deepseek", "<｜tool▁calls▁begin｜>what?"),
    ("qwen_coder", "<tool_call>\nno function\n</tool_call>"),
    ("qwen_coder", "<function=" + "x" * 600 + ">"),
    ("qwen_coder", "a <function= b"),
    ("glm", "<tool_call>get_weather"),
    ("dsml", '<｜DSML｜function_calls>\n<｜DSML｜parameter name="x">'),
    ("gemma", "<|tool_call>cell:x{}"),
    ("gemma", "<|tool_call>call:" + "x" * 600 + "{}"),
    ("pythonic", "[1, 2, 3]"),
    ("pythonic", "[somebody(a=1)]"),
    ("pythonic", " [get_weather"),
    ("pythonic", "So: [get_weather(city=1)]"),
    ("lfm2", "<|tool_call_start|>[1, 2]"),
    ("olmo3", "<function_calls>\nnone\n</function_calls>"),
    ("harmony", "Words, <b> and to=functions.ping."),
    ("internlm", "<|action_start|>"),
]


def read(family: Family, pieces: list[str], **options: Any) -> tuple[str, list[tuple[str, str]], list[Parts]]:
    """Text, names and arguments of an answer in such pieces, and the parts."""
    reader = AnswerReader(Reading(family=family, functions=SCHEMAS, **options), lambda: b"")
    parts = [*map(reader.push, pieces), reader.flush()]
    deltas = [delta for part in parts for delta in part.calls]
    calls = [
        (delta.name, "".join(other.arguments for other in deltas if other.index == delta.index))
        for delta in deltas
        if delta.name is not None
    ]
    return "".join(part.text for part in parts), calls, parts


def cut(text: str, data: st.DataObject) -> list[str]:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=30)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.mark.parametrize(("name", "answer", "text", "calls"), ANSWERS)
def test_calls_are_found(name, answer, text, calls):
    for pieces in ([answer], list(answer)):
        said, found, _ = read(BY_NAME[name], pieces)
        assert said == text
        assert [(called, json.loads(arguments)) for called, arguments in found] == calls


@pytest.mark.parametrize(("name", "answer", "text", "calls"), ANSWERS)
@settings(max_examples=FEW)
@given(data=st.data())
def test_an_answer_is_the_same_in_any_pieces(name, answer, text, calls, data):
    until = data.draw(st.integers(0, len(answer)))
    pieces = cut(answer[:until], data)
    assert read(BY_NAME[name], pieces)[:2] == read(BY_NAME[name], [answer[:until]])[:2]


@pytest.mark.parametrize(("name", "answer"), WORDS)
@settings(max_examples=FEW)
@given(data=st.data())
def test_what_is_no_call_stays_text(name, answer, data):
    assert read(BY_NAME[name], cut(answer, data))[:2] == (answer, [])


@pytest.mark.parametrize("name", BY_NAME)
@settings(max_examples=FEW)
@given(data=st.data())
def test_nothing_that_a_model_may_write_breaks_a_parser(name, data):
    """Whatever is written, it is read, and the same in any pieces."""
    family = BY_NAME[name]
    words = [*family.markers, *"{}[]\":,;<>=/ \n", '"name"', '"arguments"', "ping", "<parameter=a>", "</parameter>",
             "<function=ping>", "</function>", "<arg_key>a</arg_key>", "<arg_value>", "</arg_value>", '{"name":"ping"',
             '<invoke name="ping">', '<parameter name="a">', "x", "1", "ü", "call:ping{", "ping(", "a=", "'", "print(",
             '<｜DSML｜parameter name="a" string="true">', " to=functions.ping", "analysis", "final",
             "assistant", "\\", "**", *getattr(getattr(family.format, "notation", None), "quotes", ())]  # fmt: skip
    answer = "".join(data.draw(st.lists(st.sampled_from(words), max_size=30)))
    assert read(family, cut(answer, data))[:2] == read(family, [answer])[:2]


def test_arguments_come_as_they_are_generated():
    tokens = [
        "<tool_call>",
        "\n",
        '{"name": "get',
        '_weather"',
        ', "arguments": ',
        '{"city": "Be',
        'rn"',
        "}",
        "}",
        "\n",
    ]
    deltas = [part.calls for part in read(BY_NAME["hermes"], tokens)[2]]
    named = [(i, call.name, call.arguments) for i, calls in enumerate(deltas) for call in calls]
    assert named == [(3, "get_weather", ""), (5, None, '{"city": "Be'), (6, None, 'rn"'), (7, None, "}")]


def test_strings_between_tags_come_as_they_are_generated():
    tokens = ["<function=get_weather>", "<parameter=city>", "\n", "New", " York\n", "City", "\n", "</para", "meter>"]
    deltas = [part.calls for part in read(BY_NAME["qwen_coder"], tokens)[2]]
    texts = [call.arguments for calls in deltas for call in calls]
    assert texts == ["", '{"city": "', "New", " York", "\\nCity", '"']


def test_text_is_held_back_only_while_it_may_be_a_marker():
    texts = [part.text for part in read(BY_NAME["hermes"], ["a", " <", "b> <tool", "_cake>", " end", " "])[2]]
    assert texts == ["a", "", " <b>", " <tool_cake>", " end", "", " "]


@pytest.mark.parametrize(
    ("name", "answer", "arguments"),
    [
        ("hermes", '<tool_call>{"name": "unheard_of", "arguments": {"a": 1}}</tool_call>', '{"a": 1}'),
        ("hermes", '<tool_call>{"name": "ping", "arguments": {"a": 1</tool_call>', '{"a": 1'),
        ("hermes", '<tool_call>{"name": "ping", "arguments": {"a": "cut', '{"a": "cut'),
        ("hermes", '<tool_call>{"name": "ping", "arguments": {a: 1}}</tool_call>', "{a: 1}"),
        ("qwen_coder", "<tool_call><function=get_weather><parameter=city>Bern", '{"city": "Bern'),
        ("qwen_coder", "<function=get_weather><parameter=days>many</parameter></function>", '{"days": "many"}'),
        ("qwen_coder", "<function=get_weather><parameter=city>5</parameter></function>", '{"city": "5"}'),
        ("qwen_coder", "<function=get_weather><parameter=where>None</parameter></function>", '{"where": null}'),
        ("qwen_coder", "<function=get_weather><parameter=precise>True</parameter></function>", '{"precise": true}'),
        ("qwen_coder", "<function=get_weather><parameter=units>C</parameter></function>", '{"units": "C"}'),
        ("qwen_coder", "<function=new><parameter=any>[1]</parameter></function>", '{"any": [1]}'),
        (
            "qwen_coder",
            f"<function=get_weather><parameter=days>{'9' * 5000}</parameter></function>",
            f'{{"days": {"9" * 5000}}}',
        ),
        ("qwen_coder", "<function=get_weather><parameter=days>2.0</parameter></function>", '{"days": 2.0}'),
        ("qwen_coder", "<function=new><parameter=x>NaN</parameter></function>", '{"x": "NaN"}'),
        ("qwen_coder", "<function=get_weather><parameter=unit>5</parameter></function>", '{"unit": "5"}'),
        (
            "qwen_coder",
            '<function=new><parameter=x>["</parameter>", 1]</parameter></function>',
            '{"x": ["</parameter>", 1]}',
        ),
        (
            "qwen_coder",
            '<function=new><parameter=x>["broken</parameter><parameter=y>1</parameter></function>',
            '{"x": "[\\"broken", "y": 1}',
        ),
    ],
)
def test_a_call_that_has_begun_stays_one(name, answer, arguments):
    assert [found for _, found in read(BY_NAME[name], list(answer))[1]] == [arguments]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("hermes", r'<tool_call>{"name": "\ud800f", "arguments": "{\ud800}"}</tool_call>'),
        ("pythonic", r'[ping(a="\ud800", **{"\udfff": 1})]'),
        ("tool_code", '```tool_code\nf(a="\\ud83d\\ude00")\n```'),
    ],
)
def test_halves_of_characters_can_be_told(name, answer):
    """Models may escape them; an answer with one alone could not be sent."""
    [(called, arguments)] = read(BY_NAME[name], list(answer))[1]
    assert f"{called}{arguments}".encode()


def test_one_call_and_no_more():
    text, calls, _ = read(BY_NAME["hermes"], [f"{_HERMES}{_HERMES} and words"], one_call=True)
    assert (text, len(calls)) == ("", 1)


def test_ids():
    def ids(name: str, text: str) -> list[str | None]:
        return [call.id for part in read(BY_NAME[name], [text])[2] for call in part.calls]

    first, second = ids("hermes", _HERMES * 2)
    assert first and second and first != second and first.startswith("call_") and len(first) == 29
    [mistral] = ids("mistral", "[TOOL_CALLS]ping[ARGS]{}")
    assert mistral and len(mistral) == 9 and mistral.isalnum(), "Mistral's templates want this"
    assert ids("kimi", _KIMI) == ["functions.get_weather:0"]
    first, second = ids("kimi", _KIMI + _KIMI)
    assert first == "functions.get_weather:0" != second, "ids are unique, also where the model counts wrongly"
    assert ids("mistral", "[TOOL_CALLS]ping[CALL_ID]abcdefghi[ARGS]{}") == ["abcdefghi"]
