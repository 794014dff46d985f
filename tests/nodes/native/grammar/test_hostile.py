"""Constraints made to take time and memory end in an error, or in a grammar that is no larger than others."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import ref

import pytest

from slurminfer.nodes.native.grammar import compiler
from slurminfer.nodes.native.grammar.compiler import Grammars
from slurminfer.nodes.native.grammar.constraint import Choices, Ebnf, JsonSchema, Lark, Regex, Row, Tag, Tags, Text
from slurminfer.nodes.native.grammar.errors import ConstraintError, MatcherError
from slurminfer.nodes.native.grammar.matcher import Grammar
from slurminfer.nodes.native.grammar.place import place_of

from ....support.chat_model import write_tokenizer
from ....support.grammars import tokens_of


def _deep(levels: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        (JsonSchema({"$ref": "#"}), "no text can satisfy it"),
        (JsonSchema({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}), "no te"),
        (JsonSchema({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}), "no text"),
        (JsonSchema({"enum": [f"value {number}" for number in range(600_000)]}), "expected at most 524288"),
        (JsonSchema(_deep(70)), "nested too deep: expected at most 64 levels"),
        (JsonSchema({"type": "integer", "minimum": 10**30}), "at /minimum: 10{30} is not supported for integers"),
        (JsonSchema({"allOf": [{"anyOf": [{"properties": {f"{i}-{j}": {"type": "string"}}} for j in range(4)]}
                               for i in range(12)]}), "schema too large"),
        (Regex("(" * 5000 + ")" * 5000), "exceeds? the .*nest"),
        (Regex("x" * 600_000), "expected at most 524288"),
        (Lark("start: " + "(" * 20_000), "too deeply nested"),
        (Lark("start: start"), "no text can satisfy it"),
        (Lark("a: /x/"), "no start rule"),
        (Ebnf("root ::= " + "(" * 20_000), "recursion depth"),
        (Ebnf("root ::= " + "a " * 40_000), "characters of EBNF: expected at most 65536"),
        (Lark("start: " + "a " * 40_000), "characters of Lark: expected at most 65536"),
        (Lark("start: " + '"a" ' * 5000), "5000 strings and regular expressions .*: expected at most 4096"),
        (Tags([Tag(f"<{i}>", Lark("start: " + "a " * 10_000)) for i in range(4)]), "characters of Lark: expected at"),
        (Ebnf("root ::= nothing"), "'nothing' not found"),
        (Choices([]), "0 choices: expected 1 to 10000"),
        (Choices(["x"] * 10_001), "10001 choices"),
        (Tags([Tag("<a>", Regex("x"))], triggers=["<b>"]), "the trigger '<b>' begins no tag"),
        (Tags([]), "0 tags"),
    ],
)  # fmt: skip
def test_hostile_constraints_are_refused(grammars, constraint, said):
    with pytest.raises(ConstraintError, match=said):
        grammars.compile(constraint)


@pytest.mark.parametrize(
    "constraint",
    [
        Regex("(a+)+b"), Regex("a{1,1000000}"), Regex("((a{0,1000}){0,1000}){0,1000}"), Regex("(?:a?){5000}a{5000}"),
        Regex("(.|\n)*a(.|\n){40}"), JsonSchema({"type": "array", "minItems": 1_000_000}), JsonSchema(_deep(60)),
        JsonSchema({"type": "string", "minLength": 100_000}), Lark("start: a\na: a a | /x/ |"),
        Lark('start: a{1000000}\na: "x" "y"'), JsonSchema({"enum": list(range(20_000))}),
        JsonSchema({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
        JsonSchema({"type": "array", "maxItems": 1000, "items": {"type": "array", "maxItems": 1000}}),
    ],
)  # fmt: skip
def test_what_looks_hostile_goes_token_by_token_or_ends_in_an_error(grammars, constraint):
    matcher = grammars.compile(constraint).matcher(grammars.ends)
    with suppress(MatcherError):
        for step in range(30):
            tokens = [token for token in tokens_of(matcher.fill()) if token not in grammars.ends]
            if not tokens:
                break
            matcher.accept(tokens[step % len(tokens)])


_LEVELS = 8000
_CHAINS = {
    "rules": Lark("start: r0\n" + "\n".join(f"r{i}:r{i + 1}" for i in range(5000)) + '\nr5000:"c"'),
    "references": JsonSchema({"$ref": "#/$defs/0", "$defs": {
        **{str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(_LEVELS)}, str(_LEVELS): {"type": "null"}}}),
    "items": JsonSchema({"$ref": "#/$defs/0", "$defs": {
        **{str(i): {"type": "array", "items": {"$ref": f"#/$defs/{i + 1}"}} for i in range(4000)},
        "4000": {"type": "null"}}}),
}  # fmt: skip
_COMPILE = """
import sys
import threading
from pathlib import Path
from typing import Any
from slurminfer.nodes.native.grammar.compiler import Grammars
from slurminfer.nodes.native.grammar.threads import DeepThreads
from slurminfer.nodes.native.tokenizer import Tokenizer
from tests.nodes.native.grammar.test_hostile import _CHAINS

tokenizer = Tokenizer(Path(sys.argv[1]))
grammars = Grammars(tokenizer.json, tokenizer.end_ids, tokenizer.special_ids)
usual = threading.stack_size(1 << 20)
made = DeepThreads(1, "grammar").submit(grammars.compile, _CHAINS[sys.argv[2]], 320).result()
assert threading.stack_size() == 1 << 20

def use():
    global made
    print(any(made.matcher().fill()))
    made = grammars = None

thread = threading.Thread(target=use)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("chain", _CHAINS)
def test_long_chains_of_references_do_not_overflow_the_stack(tmp_path, chain):
    write_tokenizer(tmp_path)
    command = [sys.executable, "-c", _COMPILE, str(tmp_path), chain]
    done = subprocess.run(command, cwd=Path(__file__).parents[4], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


@pytest.mark.parametrize(
    "constraint",
    [
        JsonSchema({"type": "integer", "multipleOf": 1_000_003}),
        JsonSchema({"multipleOf": 10.00003}),
        JsonSchema({"multipleOf": 1e-5 * 100_003}),
        JsonSchema({"allOf": [{"multipleOf": 997}, {"multipleOf": 1009}]}),
        JsonSchema({"properties": {f"{i}": {"multipleOf": 3001, "minimum": i} for i in range(40)}}),
        Row([JsonSchema({"multipleOf": 3001, "minimum": i}) for i in range(40)]),
        Lark('start: %json {"multipleOf" : 1000003}'),
        Lark('start: %json {"multiple\\u004ff": 1000003}'),
    ],
)
def test_what_takes_a_state_of_each_remainder_is_refused(grammars, constraint):
    """Each would take many seconds and hundreds of megabytes."""
    with pytest.raises(ConstraintError, match=r"multipleOf [0-9.e+-]+ takes too long|\\u in a grammar with %json"):
        grammars.compile(constraint)


def test_multiples_that_people_use_are_taken(grammars):
    for value in (0.01, 1, 5, 0.25, 86_400, 10**6, 4096, 1e-9, -3):
        grammars.compile(JsonSchema({"multipleOf": value}))
    grammars.compile(JsonSchema({"properties": {f"{i}": {"multipleOf": 0.01, "minimum": i} for i in range(1000)}}))


def test_the_place_of_a_fault_is_looked_for_as_long_as_there_is_time():
    schema: dict[str, Any] = {"type": "no"}
    for _ in range(20):
        schema = {"items": schema}
    now = 0.0

    def reason(part: Any) -> str:
        nonlocal now
        now += 0.3
        return "why"

    assert place_of(schema, reason, lambda: now) == "/items/items/items"
    assert place_of(schema, reason, lambda: 0.0) == "/items" * 20


def test_definitions_that_many_schemas_share_are_counted_for_each(grammars):
    shared = {"$defs": {"a": {"enum": ["x" * 1000] * 100}}}
    row = Row([JsonSchema({"title": f"{number}", **shared}) for number in range(1000)])  # 100 MB, were it written out
    with pytest.raises(ConstraintError, match=r"^6[0-9]{5} characters of schemas: expected at most 524288"):
        grammars.compile(row)


def test_rules_are_counted_as_they_are_written(grammars):
    with pytest.raises(ConstraintError, match=r"^[0-9]{6} characters: expected at most 524288"):
        grammars.compile(Row([Choices(["x" * 1000] * number) for number in range(1, 1000)]))


def test_a_text_that_contradicts_itself_ends_in_a_plain_error(grammars):
    matcher = grammars.compile(Row(["a", Text(patterns=["(?:.|\n){0,2}", "b{3}"])])).matcher()
    with pytest.raises(MatcherError, match="the grammar cannot go on: no text that it allows begins so"):
        for token in grammars.tokenizer.encode("ab", add_special_tokens=False):
            matcher.fill()
            matcher.accept(token)


def test_a_place_may_have_thousands_of_choices(grammars):
    choices = Choices([f"{number:x} {number:b}" for number in range(10_000)])
    assert grammars.takes(choices, f"{9_999:x} {9_999:b}")
    properties = JsonSchema({"properties": {f"p{number}": {"type": "integer"} for number in range(1000)}})
    assert grammars.takes(properties, '{"p999": 1}')


def test_a_text_that_meets_a_limit_of_the_library_ends_in_an_error_and_the_next_one_starts_anew(tokenizer, monkeypatch):
    monkeypatch.setattr(compiler, "_MAX_LEXER_STATES", 400)
    grammars = Grammars(tokenizer.json, tokenizer.end_ids, tokenizer.special_ids)
    constraint = JsonSchema({"type": "string", "maxLength": 1_000_000})
    text = tokenizer.encode('"' + "The quick brown fox " * 100, add_special_tokens=False)

    def write() -> int:
        matcher, done = grammars.compile(constraint, 320).matcher(), 0
        with pytest.raises(MatcherError, match="too many states"):
            for token in text:
                matcher.fill()
                matcher.accept(token)
                done += 1
        return done

    first = write()
    assert first > 5
    assert write() == first


def test_compiled_grammars_are_kept_and_the_oldest_forgotten(tokenizer):
    grammars = Grammars(tokenizer.json, tokenizer.end_ids, tokenizer.special_ids)
    first = ref(grammars.compile(Regex("x0"), 320))
    assert grammars.compile(Regex("x0"), 320) is first()
    for number in range(1, 32):
        grammars.compile(Regex(f"x{number}"), 320)
    assert grammars.compile(Regex("x0"), 320) is first()
    for number in range(32, 64):
        grammars.compile(Regex(f"x{number}"), 320)
    assert first() is None


def test_many_large_grammars_are_not_kept(tokenizer, monkeypatch):
    monkeypatch.setattr(compiler, "_MAX_KEPT_BYTES", 30_000)
    grammars = Grammars(tokenizer.json, tokenizer.end_ids, tokenizer.special_ids)
    made = [Choices([f"{number}" + "x" * 2_000]) for number in range(30)]
    first = ref(grammars.compile(made[0], 320))
    for constraint in made[1:10]:
        grammars.compile(constraint, 320)
    assert grammars.compile(made[0], 320) is first()
    for constraint in made[10:]:
        grammars.compile(constraint, 320)
    assert first() is None


def test_why_a_constraint_cannot_be_compiled_is_remembered(tokenizer, monkeypatch):
    grammars = Grammars(tokenizer.json, tokenizer.end_ids, tokenizer.special_ids)
    with pytest.raises(ConstraintError) as first:
        grammars.compile(Regex("["), 320)
    monkeypatch.setattr(grammars, "_compile", None)
    with pytest.raises(ConstraintError, match="unclosed character class") as again:
        grammars.compile(Regex("["), 320)
    assert str(again.value) == str(first.value)


class SlowLibrary:
    """Stands for a matcher of the library that takes so many seconds for each mask."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 0.0

    def deep_copy(self) -> "SlowLibrary":
        return self

    def compute_bitmask(self) -> bytes:
        self.now += self.seconds
        return b"\xff"

    def consume_token(self, token: int) -> bool:
        return True

    def is_error(self) -> bool:
        return False


@pytest.mark.parametrize(("seconds", "most"), [(0.5, 10), (0.005, 2000), (0.002, None)])
def test_a_grammar_whose_tokens_take_too_long_ends_its_sequences(seconds, most):
    library: Any = SlowLibrary(seconds)
    slow = Grammar(library, 8, frozenset(), lambda: library.now)
    matchers, steps = [slow.matcher() for _ in range(2)], 0
    with suppress(MatcherError):
        for steps in range(3000):
            matchers[steps % 2].fill()
            matchers[steps % 2].accept(1)
    assert slow.is_slow == (most is not None)
    if most is None:
        assert steps == 2999
    else:
        assert steps < most
        then = library.now
        for matcher in (*matchers, slow.matcher()):
            with pytest.raises(MatcherError, match="each token takes more than 3 ms"):
                matcher.fill()
        assert library.now == then  # nothing is computed any more


def test_a_grammar_that_was_too_slow_is_refused_from_then_on(tokenizer):
    grammars = Grammars(tokenizer.json, tokenizer.end_ids, tokenizer.special_ids)
    grammars.compile(Regex("x"), 320).is_slow = True
    with pytest.raises(ConstraintError, match="each token takes more than 3 ms"):
        grammars.compile(Regex("x"), 320)
    assert any(grammars.compile(Regex("y"), 320).matcher().fill())
