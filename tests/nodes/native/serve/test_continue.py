"""Answers that begin with tokens of another server."""

import msgspec
import pytest

from slurminfer.nodes.native.api.answers.formats import UnsentIds
from slurminfer.nodes.native.api.answers.generation import Choice, Delta, TextOptions
from slurminfer.nodes.native.api.errors import ApiError
from slurminfer.nodes.native.api.requests.chat import ChatRequest
from slurminfer.nodes.native.api.requests.completions import CompletionRequest
from slurminfer.nodes.native.api.requests.protocol import begun_matcher, parse, require_continuable
from slurminfer.nodes.native.engine.request import FinishReason, Request, SamplingParams
from slurminfer.nodes.native.grammar.constraint import Regex
from slurminfer.nodes.native.tokenizer import Tokenizer

from ....support.fake_model import FakeModel, alone, make_core, run
from ....support.grammars import TokenGrammars


@pytest.fixture
def tokenizer(tmp_path, make_tokenizer) -> Tokenizer:
    make_tokenizer(tmp_path)
    return Tokenizer(tmp_path)


def _choice(tokenizer: Tokenizer, told: list[int], stops: list[str]) -> Choice:
    request = Request("r", [5], SamplingParams(max_tokens=50), told)
    return Choice(0, request, tokenizer, TextOptions(stops=stops))


@pytest.mark.parametrize("stops", [[], ["zy"], ["🎉!"]])
def test_text_goes_on_after_any_token(tokenizer, stops):
    ids = tokenizer.encode("This is the lazy 🎉? dog", add_special_tokens=False)
    undisturbed = _choice(tokenizer, [], stops)
    texts = [undisturbed.push(id, None, None) for id in ids]
    for cut in range(len(ids)):
        choice = _choice(tokenizer, ids[:cut], stops)
        if choice.skip(ids[:cut]):
            assert any(delta.finish for delta in texts[:cut])
            continue
        assert [choice.push(id, None, None) for id in ids[cut:]] == texts[cut:]
        assert choice.tokens == len(ids)


def test_an_answer_by_a_grammar_goes_on_where_its_matcher_is(tokenizer):
    grammar = TokenGrammars(tokenizer).compile(Regex("[a-c]{9}"))
    ids = tokenizer.encode("abc", add_special_tokens=False)
    matcher = begun_matcher(ids, grammar, frozenset())
    request = Request("r", [5], SamplingParams(max_tokens=50, grammar=grammar), ids, matcher=matcher)
    assert request.matcher is matcher  # no token is followed again in the engine's thread
    assert request.matcher.valid(tokenizer.encode("abcabca", add_special_tokens=False)) == 6
    assert begun_matcher([], grammar, frozenset()) is begun_matcher(ids, None, frozenset()) is None


def test_an_answer_that_cannot_begin_so_or_takes_too_long_is_refused(tokenizer):
    grammar = TokenGrammars(tokenizer).compile(Regex("[a-c]{9}"))
    ids = tokenizer.encode("abx", add_special_tokens=False)
    with pytest.raises(ApiError, match=f"does not allow token {ids[2]} at place 2") as refused:
        begun_matcher(ids, grammar, frozenset())
    assert (refused.value.status, refused.value.param) == (400, "continue_token_ids")
    grammar.is_slow = True
    with pytest.raises(ApiError, match="at place 0: each token takes more than 3 ms"):
        begun_matcher(ids[:1], grammar, frozenset())


def test_the_engine_goes_on_after_any_token():
    whole = alone([1, 2], 20, end=None)
    params = SamplingParams(max_tokens=20, temperature=0)
    for cut in range(20):
        request = Request("r", [1, 2], params, whole[:cut])
        core = make_core(FakeModel(40, 4))
        core.add(request)
        assert run(core)["r"] == whole[cut:]
        assert (request.prompt_length, request.generated) == (2, 20)


def test_seeds_go_on_where_they_were():
    params = SamplingParams(max_tokens=9, seed=3)
    undisturbed, numbers = Request("r", [1], params), []
    for token in range(5):
        numbers.append(undisturbed.uniform())
        undisturbed.extend(token)
    assert Request("r", [1], params, [0, 1, 2]).uniform() == numbers[3]


def test_ids_of_tokens_without_text_come_with_the_next_event():
    unsent = UnsentIds()
    for delta in (Delta(0, "", 7, None, None), Delta(1, "x", 8, None, None)):
        unsent.add(delta)
    unsent.add(Delta(0, "a", None, None, FinishReason.STOP, 1))
    assert (unsent.take(0), unsent.take(0), unsent.take(1)) == ([7, 1], [], [8])


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (ChatRequest, {"messages": [{"role": "user", "content": ""}], "n": 2}),
        (CompletionRequest, {"prompt": "a", "n": 2}),
        (CompletionRequest, {"prompt": ["a", "b"]}),
    ],
)
def test_only_one_choice_can_be_continued(kind, fields):
    with pytest.raises(ApiError, match="continue_token_ids is only allowed with one"):
        parse(kind, msgspec.json.encode({"model": "m", "continue_token_ids": [1], **fields}))


@pytest.mark.parametrize(("ids", "said"), [([1, 99], "token id 99"), ([1, 2, 3], "fewer than max_tokens = 3")])
def test_tokens_that_cannot_be_continued(ids, said):
    with pytest.raises(ApiError, match=said):
        require_continuable(ids, 50, 3)
