"""Answers that begin with tokens of another server."""

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest

from slurminfer.nodes.native.api.answers.chat_format import ChatFormat
from slurminfer.nodes.native.api.answers.completion_format import CompletionFormat
from slurminfer.nodes.native.api.answers.echo import Echo
from slurminfer.nodes.native.api.answers.formats import Origin, UnsentIds, usage
from slurminfer.nodes.native.api.answers.generation import Choice, Delta, Generation, TextOptions
from slurminfer.nodes.native.api.errors import ApiError
from slurminfer.nodes.native.api.requests.chat import ChatRequest
from slurminfer.nodes.native.api.requests.completions import CompletionRequest
from slurminfer.nodes.native.api.requests.continued import Told
from slurminfer.nodes.native.api.requests.protocol import (
    begun_matcher,
    parse,
    require_continuable,
    require_few_told,
)
from slurminfer.nodes.native.engine.request import FinishReason, Request, SamplingParams, TokenLogprobs
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
    matcher = begun_matcher(Told(ids), grammar, frozenset())
    request = Request("r", [5], SamplingParams(max_tokens=50, grammar=grammar), ids, matcher=matcher)
    assert request.matcher is matcher  # no token is followed again in the engine's thread
    assert request.matcher.valid(tokenizer.encode("abcabca", add_special_tokens=False)) == 6
    for told, constraint in ((Told(), grammar), (Told(ids), None), (Told(ids, is_finished=True), grammar)):
        assert begun_matcher(told, constraint, frozenset()) is None


def test_an_answer_that_cannot_begin_so_or_takes_too_long_is_refused(tokenizer):
    grammar = TokenGrammars(tokenizer).compile(Regex("[a-c]{9}"))
    ids = tokenizer.encode("abx", add_special_tokens=False)
    with pytest.raises(ApiError, match=f"does not allow token {ids[2]} at place 2") as refused:
        begun_matcher(Told(ids, param="continue_token_ids[1]"), grammar, frozenset())
    assert (refused.value.status, refused.value.param) == (400, "continue_token_ids[1]")
    grammar.is_slow = True
    with pytest.raises(ApiError, match="at place 0: each token takes more than 3 ms"):
        begun_matcher(Told(ids[:1]), grammar, frozenset())


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


def _parse(kind: type, **fields: Any) -> Any:
    prompt = {"messages": [{"role": "user", "content": ""}]} if kind is ChatRequest else {"prompt": "a"}
    return parse(kind, msgspec.json.encode({"model": "m", "stream": True, **prompt, **fields}))


@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest])
def test_each_choice_has_its_tokens(kind):
    asked = _parse(kind, n=3, continue_token_ids=[[1, 2], [], [3]], finished_choices=[2])
    assert [(list(told.tokens), told.is_finished) for told in asked.told] == [([1, 2], False), ([], False), ([3], True)]
    assert [list(told.tokens) for told in _parse(kind, continue_token_ids=[1, 2]).told] == [[1, 2]]
    assert [list(told.tokens) for told in _parse(kind, continue_token_ids=[[1, 2]]).told] == [[1, 2]]
    nothings: list[dict[str, Any]] = [
        {}, {"continue_token_ids": []}, {"continue_token_ids": None, "finished_choices": []},
    ]  # fmt: skip
    for nothing in nothings:
        assert [list(told.tokens) for told in _parse(kind, n=2, **nothing).told] == [[], []]


def test_the_choices_of_all_prompts_are_in_one_list():
    asked = _parse(CompletionRequest, prompt=["a", "b"], n=2, continue_token_ids=[[1], [2], [3], []])
    assert [list(told.tokens) for told in asked.told] == [[1], [2], [3], []]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"n": 2, "continue_token_ids": [1]}, "continue_token_ids", "a list of token ids for each of the 2 choices"),
        ({"n": 2, "continue_token_ids": [[1]]}, "continue_token_ids", "has 1 lists: expected 2, one for each choice"),
        ({"continue_token_ids": [[1], [2]]}, "continue_token_ids", "has 2 lists: expected 1"),
        ({"n": 2, "continue_token_ids": [[1], 2]}, "continue_token_ids", "token ids, or a list of token ids for each"),
        ({"n": 2, "continue_token_ids": [[1], ["x"]]}, "continue_token_ids[1][0]", "integer"),
        ({"n": 2, "continue_token_ids": [[1], None]}, "continue_token_ids[1]", "expected an integer or a list"),
        ({"n": 2, "continue_token_ids": {"0": [1]}}, "continue_token_ids", "expected a list"),
        ({"n": 2, "continue_token_ids": [[1], []], "finished_choices": [2]}, "finished_choices", "index 2: expected 0"),
        ({"n": 2, "continue_token_ids": [[1], []], "finished_choices": [-1]}, "finished_choices", "index -1"),
        ({"n": 2, "continue_token_ids": [[1], []], "finished_choices": [0], "stream": False}, "finished_choices",
         "stream = true"),
        ({"n": 2, "continue_token_ids": [[1], []], "finished_choices": 0}, "finished_choices", "expected a list"),
        ({"n": 2, "finished_choices": [0]}, "finished_choices", "only allowed with continue_token_ids"),
        ({"best_of": 2, "continue_token_ids": [[1], [2]], "stream": False}, "continue_token_ids", "best_of = n = 1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest])
def test_what_cannot_be_continued_is_refused_by_name(kind, fields, param, said):
    with pytest.raises(ApiError, match=re.escape(said)) as refused:
        _parse(kind, **fields)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_lists_must_be_as_many_as_the_choices_of_all_prompts():
    with pytest.raises(ApiError, match="has 2 lists: expected 4"):
        _parse(CompletionRequest, prompt=["a", "b"], n=2, continue_token_ids=[[1], [2]])


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (Told([1, 99]), "continue_token_ids: token id 99"),
        (Told([1, 2, 3]), "fewer than max_tokens = 3"),
        (Told([1, 99], True, "continue_token_ids[4]"), "continue_token_ids[4]: token id 99"),
        (Told([1, 2, 3, 4], True), "at most max_tokens = 3"),
    ],
)
def test_tokens_that_cannot_be_continued(told, said):
    with pytest.raises(ApiError, match=re.escape(said)) as refused:
        require_continuable(told, 50, 3)
    assert refused.value.param == told.param


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([Told([1] * 6), Told([1] * 5, True)], "have 11 tokens: expected at most 10"),
        ([Told([1]), Told([1]), Told([1])], "have 33 tokens with their prompts: expected at most 30"),
        ([Told([1]), Told([1], True), Told([1])], None),  # what is finished needs no prompt
        ([Told([1]), Told(), Told([1])], None),  # and these share it
    ],
)
def test_choices_that_take_too_much_to_go_on_are_refused(told, said):
    def require(one: int) -> None:
        require_few_told(told, [10] * len(told), one, most=10, most_held=30)

    require(one=40)
    if said is None:
        require(one=0)
        return
    with pytest.raises(ApiError, match=said) as refused:
        require(one=0)
    assert refused.value.param == "continue_token_ids"


def test_a_finished_choice_may_have_all_its_tokens():
    require_continuable(Told([1, 2, 3], True), 50, 3)
    require_continuable(Told([], True), 50, 0)


def test_a_finished_choice_counts_and_is_not_generated(tokenizer):
    params = SamplingParams(max_tokens=50)
    finished = Choice(0, Request("f", [5], params), tokenizer, TextOptions(stops=["zy"]))
    assert finished.skip(tokenizer.encode("the lazy", add_special_tokens=False), finished=True)
    going = Choice(1, Request("g", [5], params, [7]), tokenizer, TextOptions())
    assert not going.skip([7])
    new = Choice(2, Request("n", [5], params), tokenizer, TextOptions())
    assert [choice.is_begun for choice in (finished, going, new)] == [True, True, False]
    engine = _Engine()
    asyncio.run(_entered(Generation(engine, None, [finished, going, new], 0.0)))  # type: ignore[arg-type]
    assert engine.submitted == ["g", "n"]
    assert usage([finished, going, new], 3)["completion_tokens"] == finished.tokens + 1


class _Engine:
    """Keeps the ids of what is submitted."""

    def submit(self, requests: Sequence[Request], *, at_once: bool) -> None:
        self.submitted = [request.id for request in requests]

    def abort(self, ids: Iterable[str]) -> None:
        pass


async def _entered(generation: Generation) -> None:
    async with generation:
        pass


def test_an_answer_whose_choices_are_all_finished_has_no_deltas(tokenizer):
    choice = _choice(tokenizer, [], [])
    choice.skip([], finished=True)

    async def deltas() -> list[Delta]:
        async with Generation(_Engine(), None, [choice], 0.0) as generation:  # type: ignore[arg-type]
            return [delta async for delta in generation]

    assert asyncio.run(deltas()) == []


def test_a_choice_goes_on_in_its_format(tokenizer):
    origin = Origin("m", "f", include_usage=False)
    chat = ChatFormat(tokenizer, origin)
    chat.skip(1, [7])
    roles = ["role" in chat.chunk(Delta(index, "a", 7, None, None))["choices"][0]["delta"] for index in (0, 1)]
    assert roles == [True, False]
    echoes = [Echo("ab", [1]), Echo("cd", [1])]
    text = CompletionFormat(tokenizer, origin, echoes)
    text.skip(1, [7])
    pieces = [text.chunk(Delta(index, "!", 7, None, None))["choices"][0]["text"] for index in (0, 1)]
    assert pieces == ["ab!", "!"]
    scored = CompletionFormat(tokenizer, origin, echoes, top_count=0)
    told = tokenizer.encode("The quick", add_special_tokens=False)
    scored.skip(1, told)
    logprobs = scored.chunk(Delta(1, "!", 7, TokenLogprobs(-1.0, ()), None))["choices"][0]["logprobs"]
    assert logprobs["text_offset"] == [len("cd" + "The quick")]
