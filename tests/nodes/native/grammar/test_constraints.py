"""What constraints allow and what they do not, as text."""

import pytest

from slurminfer.nodes.native.grammar.constraint import (
    ANY_OBJECT,
    After,
    Choices,
    Ebnf,
    Either,
    JsonSchema,
    Lark,
    Regex,
    Tag,
    Tags,
)
from slurminfer.nodes.native.grammar.errors import ConstraintError

from ....support.grammars import TokenGrammars, tokens_of

A = JsonSchema({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
                "additionalProperties": False})  # fmt: skip
COMPACT = JsonSchema(A.schema, whitespace="")
CALLS = (Tag("<f=one>", A, "</f>"), Tag("<f=two>", ANY_OBJECT, "</f>"))
SPECIAL = (Tag("<|system|>one:", A, ";"),)
ODD = 'q"\\/\n\t\x00\x7f é 🎉'


@pytest.mark.parametrize(
    ("constraint", "yes", "no"),
    [
        (A, ['{"a": 1}', '{"a":-20}', '{\n  "a": 1\n}'], ['{"a":  1}', '{"a": 1.5}', '{"b": 1}', '{"a": 1} ', "", "{"]),
        (COMPACT, ['{"a":1}'], ['{"a": 1}', '{ "a":1}']),
        (JsonSchema(True), ["1", '"x"', "null", "[]", '{"a":[1,"🎉"]}'], ["x", "nul"]),
        (ANY_OBJECT, ["{}", '{"a":{"b":[]}}'], ["[]", "1"]),
        (JsonSchema({"type": "string"}), ['""', '"ü🎉"', '"\\n"'], ['"\n"', '"\\u0061"', "x"]),
        (JsonSchema({"enum": ["a", 1, None, [2], {"b": True}]}), ['"a"', "1", "null", "[2]", '{"b":true}'], ["2", "a"]),
        (JsonSchema({"type": "number"}), ["1e5", "-0.5E-7", "0"], ["01", ".5", "+1", "1e"]),
        (Regex(r"^[a-z]+/\d{2}$"), ["ab/12"], ["ab/1", "/12", "ab/123"]),
        (Regex("(a+)+b"), ["aab"], ["aa", "b"]),
        (Choices(("yes", "yes, please", "", ODD)), ["yes", "yes, please", "", ODD], ["no", "yes,"]),
        (Choices(("<|sys", "<|user|x")), ["<|sys", "<|user|x"], ["<|system|>"]),
        (Lark('start: "a" b\nb: "c"+ | %json {"type": "boolean"}'), ["acc", "atrue"], ["a", "true"]),
        (Ebnf('root ::= "a" b\nb ::= "c"+ | [0-9]{2}'), ["ac", "a12"], ["a1"]),
        (CALLS[0], ['<f=one>{"a": 1}</f>'], ['{"a": 1}', '<f=one>{"a": 1}']),
        (Tags(CALLS), ["", '<f=one>{"a": 1}</f><f=two>{}</f>'], ["x", '<f=one>{"a": 1}</f>x']),
        (Tags(CALLS, least=1, most=1), ["<f=two>{}</f>"], ["", "<f=two>{}</f><f=two>{}</f>"]),
        (Tags(CALLS, least=1, separator="\n"), ["<f=two>{}</f>\n<f=two>{}</f>"], ["", "<f=two>{}</f><f=two>{}</f>"]),
        (Tags(CALLS, triggers=("<f=",)), ["", "Hi.", 'A <f=one>{"a": 1}</f> b <f=two>{}</f> c'], ["<f=x", "<f=one>x"]),
        (Tags(CALLS, triggers=("<f=",), least=1), ["Hi <f=two>{}</f>"], ["", "Hi"]),
        (Tags(SPECIAL, triggers=("<|system|>",)), ["Hi", 'Hi <|system|>one:{"a": 1}; yes'], ["<|system|>two"]),
        (After("</think>", A), ['Well.\n</think>\n\n{"a": 1}', '</think>{"a": 1}'], ['{"a": 1}', "x</think>x"]),
        (After("<|system|>", Regex("x+")), ["Well.<|system|>xx"], ["xx", "Well.<|system|>y"]),
        (After("</think>", Lark('start: "y"')), ["Well.</think>y"], ["y"]),
        (After("</think>", A, "<think>"), ['<think>W</think>\n{"a": 1}', '{"a": 1}'], ["x", 'x</think>{"a": 1}']),
        (After("<|user|>", A, "<|system|>"), ['<|system|>W<|user|>{"a": 1}', '{"a": 1}'], ['W<|user|>{"a": 1}']),
        (Either([Tags(CALLS, least=1), A]), ['{"a": 1}', '<f=one>{"a": 1}</f>'], ["", '<f=one>{"a": 1}</f>{"a": 1}']),
    ],
)  # fmt: skip
def test_texts_that_a_constraint_takes(grammars, constraint, yes, no):
    assert [text for text in yes if not grammars.takes(constraint, text)] == []
    assert [text for text in no if grammars.takes(constraint, text)] == []


NAMED = "a<|system|>b"


@pytest.mark.parametrize(
    "constraint",
    [Choices([NAMED]), Choices([NAMED, "c"]), Regex(r"a<[|]system[|]>b"), Lark(f'start: "{NAMED}"'),
     JsonSchema({"const": NAMED}), JsonSchema({"enum": [NAMED, 1]})],
)  # fmt: skip
def test_text_is_text_also_where_it_is_the_name_of_a_token(grammars, constraint):
    """The token itself would not be seen in the answer."""
    texts = {grammars.random_text(constraint, seed) for seed in range(8)}
    assert {text.strip('"') for text in texts if text is not None} <= {NAMED, "c", "1"}
    assert any(text is not None and NAMED in text for text in texts)


def test_a_token_that_a_constraint_names_comes(grammars):
    [token] = grammars.tokenizer.encode("<|system|>", add_special_tokens=False)
    matcher = grammars.compile(Tag("<|system|>", Regex("x"))).matcher(grammars.ends)
    assert tokens_of(matcher.fill()) == [token]


def test_a_library_that_is_too_old_is_refused_by_its_version(tokenizer, monkeypatch):
    monkeypatch.setattr("slurminfer.nodes.native.grammar.compiler.version", lambda name: "1.7.6")
    with pytest.raises(ConstraintError, match=r"has llguidance 1\.7\.6: expected 1\.9 or newer"):
        TokenGrammars(tokenizer).takes(Regex("a"), "a")
