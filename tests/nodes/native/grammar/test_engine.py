"""Answers by a grammar through the engine: whatever else a request asks for, and whatever happens to it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.mask import _masked_on_device, masked
from slurminfer.nodes.native.engine.request import FinishReason, Request, SamplingParams
from slurminfer.nodes.native.engine.sampler import _invert, sample
from slurminfer.nodes.native.grammar.constraint import Choices, JsonSchema, Regex
from slurminfer.nodes.native.grammar.errors import MatcherError
from slurminfer.nodes.native.grammar.matcher import Grammar, Matcher

from ....support.fake_model import FakeModel, make_core, run
from ....support.grammars import allowed

VOCAB = 320
SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {"type": "object", "additionalProperties": False, "required": ["name", "kind", "size"], "properties": {
        "name": {"type": "string", "maxLength": 6}, "kind": {"enum": ["small", "medium", "large", 7, None]},
        "size": {"type": "integer", "minimum": 0, "maximum": 999}}},
    "minItems": 1, "maxItems": 2,
}  # fmt: skip
PROMPTS = [[7 + i, 9, 20 + i] for i in range(6)]


def _model(blocks: int = 400, **options: Any) -> FakeModel:
    return FakeModel(blocks, 4, vocab_size=VOCAB, **options)


@pytest.fixture(scope="module")
def grammar(grammars) -> Grammar:
    return grammars.compile(JsonSchema(SCHEMA, whitespace=""))


@pytest.fixture
def greedy(grammar, grammars) -> SamplingParams:
    return SamplingParams(max_tokens=200, temperature=0, grammar=grammar, stop_token_ids=grammars.ends)


def _answers(core: EngineCore, params: SamplingParams, prompts: Sequence[list[int]] = PROMPTS) -> dict[str, list[int]]:
    for number, prompt in enumerate(prompts):
        core.add(Request(str(number), prompt, params))
    return run(core)


def _values(grammars, answers: dict[str, list[int]]) -> list[Any]:
    """The JSON of answers, which all must be valid."""
    ends = grammars.ends
    texts = [b"".join(grammars.tokenizer.token_bytes(token) for token in answer if token not in ends).decode()
             for answer in answers.values()]  # fmt: skip
    values = [json.loads(text) for text in texts]
    for value in values:
        jsonschema.Draft202012Validator(SCHEMA).validate(value)
    return values


@pytest.mark.parametrize("method", ["ngram", "draft"])
def test_guessed_tokens_change_nothing(grammars, greedy, method):
    plain = _answers(make_core(_model(), running=8, budget=64), greedy)
    core = make_core(_model(), running=8, budget=64, method=method)
    assert _answers(core, greedy) == plain
    assert len(_values(grammars, plain)) == len(PROMPTS)
    assert core._speculation is not None
    assert core._speculation.accepted > 20


def test_nothing_is_guessed_where_masks_take_long(grammars, greedy, monkeypatch):
    """Those behind each guess are computed in the engine's thread, while all others wait."""
    plain = _answers(make_core(_model(), running=8, budget=64), greedy)
    monkeypatch.setattr(Grammar, "is_heavy", True)
    core = make_core(_model(), running=8, budget=64, method="ngram")
    assert _answers(core, greedy) == plain
    assert core._speculation is not None
    assert core._speculation.guessed == 0


def test_no_guess_is_what_the_grammar_forbids(grammars, greedy):
    core = make_core(_model(), running=8, budget=64, method="draft")
    requests = [Request(str(number), prompt, greedy) for number, prompt in enumerate(PROMPTS)]
    for request in requests:
        core.add(request)
    assert core._speculation is not None
    seen, guess = 0, core._speculation.guess

    def checked(slices):
        nonlocal seen
        found = guess(slices)
        for request in requests:
            for place, _ in enumerate(guesses := found.get(request.id, [])):
                seen += 1
                assert request.matcher.valid(guesses[: place + 1]) == place + 1
        return found

    core._speculation.guess = checked  # type: ignore[method-assign]
    run(core)
    assert seen > 50


@pytest.mark.parametrize("depth", [1, 3])
def test_steps_that_overlap_and_a_crowded_cache_change_nothing(grammars, greedy, depth):
    roomy = _answers(make_core(_model(), running=8, budget=64), greedy)
    core = make_core(_model(60, depth=depth), running=8, budget=64)
    assert _answers(core, greedy) == roomy
    assert core.stats().preemptions > 0
    _values(grammars, roomy)


@pytest.mark.parametrize(
    "how",
    [{"temperature": 1.0}, {"temperature": 1.5, "top_k": 3}, {"temperature": 1.0, "top_p": 0.01}, {"min_p": 0.5},
     {"top_p": 0.9, "top_k": 300}, {"presence_penalty": 2.0, "frequency_penalty": 2.0}, {"repetition_penalty": 9.0},
     {"temperature": 0.0, "repetition_penalty": 5.0}, {"logprobs": 3}],
)  # fmt: skip
def test_answers_are_valid_however_tokens_are_drawn(grammars, greedy, how):
    params = replace(greedy, **{"temperature": 1.0, "seed": 5, **how})
    first = _answers(make_core(_model(), running=8, budget=64), params)
    assert len(_values(grammars, first)) == len(PROMPTS)
    assert _answers(make_core(_model(), running=3, budget=16), params) == first  # a seed gives the same in any batch


def test_choices_share_a_grammar_and_not_a_matcher(grammars, greedy):
    core = make_core(_model(), running=8, budget=64)
    for seed in range(5):
        core.add(Request(str(seed), PROMPTS[0], replace(greedy, temperature=1.0, seed=seed)))
    values = _values(grammars, run(core))
    assert len({json.dumps(value) for value in values}) > 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_neighbours_with_a_grammar_change_nothing_for_others(greedy, temperature):
    free = SamplingParams(max_tokens=40, temperature=temperature, seed=3, logprobs=2)
    expected = _answers(make_core(_model(), running=8, budget=64), free, PROMPTS[:1])["0"]
    core = make_core(_model(), running=8, budget=64)
    core.add(Request("free", PROMPTS[0], free))
    assert _answers(core, greedy, PROMPTS[1:])["free"] == expected


def test_an_answer_goes_on_after_tokens_of_another_worker(greedy):
    whole = _answers(make_core(_model()), greedy, PROMPTS[:1])["0"]
    for cut in range(len(whole)):
        core = make_core(_model())
        core.add(Request("r", PROMPTS[0], greedy, whole[:cut]))
        assert run(core)["r"] == whole[cut:]


def test_a_complete_answer_ends_without_an_end_token(grammars, greedy):
    core, finishes = make_core(_model()), []
    core.add(Request("r", PROMPTS[0], greedy))
    tokens = []
    while core.busy:
        for output in core.step():
            assert output.sample is not None
            tokens.append(output.sample.token)
            finishes.append(output.finish)
    assert finishes[-1] is FinishReason.STOP
    assert grammars.tokenizer.token_bytes(tokens[-1]).endswith(b"]")


@pytest.mark.parametrize(
    ("stops", "at_the_start", "after_one"), [({1}, False, True), (set(), False, False), ({1, 90}, False, True)]
)
def test_end_tokens_may_come_where_the_answer_may_end(grammars, stops, at_the_start, after_one):
    """Token 90 is text: as a stop token it may come where the answer may end, and nowhere else."""
    matcher = grammars.compile(Regex("[xyz]{1,9}")).matcher(frozenset(stops))
    [x] = grammars.tokenizer.encode("x", add_special_tokens=False)
    assert [allowed(matcher.fill(), token) for token in (1, 90)] == [at_the_start, False]
    matcher.accept(x)
    assert [allowed(matcher.fill(), token) for token in (1, 90)] == [after_one, 90 in stops]


def test_a_stop_token_of_text_comes_only_where_the_answer_may_end(grammars):
    x, y = grammars.tokenizer.encode("xy", add_special_tokens=False)
    matcher = grammars.compile(Regex("[xy]{2}[xy]*")).matcher(frozenset([y]))
    assert not allowed(matcher.fill(), y)
    matcher.accept(x)
    matcher.accept(x)
    assert allowed(matcher.fill(), y)
    only = grammars.compile(Regex("y+")).matcher(frozenset([y]))
    assert allowed(only.fill(), y), "else nothing could come at all"


def test_without_end_tokens_an_answer_goes_on_until_it_is_complete_or_too_long(grammars):
    core = make_core(_model())
    for id, pattern in (("open", "[a-z]*"), ("bounded", "[a-z]{0,12}")):
        params = SamplingParams(max_tokens=20, temperature=0, grammar=grammars.compile(Regex(pattern)))
        core.add(Request(id, PROMPTS[0], params))
    answers = run(core)
    texts = {id: b"".join(map(grammars.tokenizer.token_bytes, answer)).decode() for id, answer in answers.items()}
    assert len(answers["open"]) == 20
    assert len(texts["bounded"]) == 12


def test_logprobs_are_the_models_own(grammars):
    logits = torch.randn(1, VOCAB)
    params = SamplingParams(max_tokens=5, temperature=0, logprobs=2, grammar=grammars.compile(Choices(["x", "y"])))
    [found] = sample(logits, [Request("r", [1], params)])
    own = logits.log_softmax(-1)[0]
    assert found.logprobs is not None
    assert found.logprobs.chosen == pytest.approx(float(own[found.token]))
    assert found.logprobs.top[0][0] == int(own.argmax())


def test_rows_without_a_grammar_stay_as_they_are(grammars):
    logits = torch.randn(2, VOCAB)
    free = Request("free", [1], SamplingParams(max_tokens=5))
    assert masked(logits, [free, free]) is logits
    bound = Request("bound", [1], SamplingParams(max_tokens=5, grammar=grammars.compile(Choices(["x"]))))
    before = logits.clone()
    found = masked(logits, [bound, free])
    [x] = grammars.tokenizer.encode("x", add_special_tokens=False)
    assert torch.equal(found[1], before[1])
    assert found[0].isfinite().nonzero().flatten().tolist() == [x]
    assert found[0, x] == before[0, x]
    assert torch.equal(masked(found, [bound, free]), found), "the rows of a step in which one fails are drawn again"


@pytest.mark.parametrize("vocab", [300, 352])
def test_a_model_may_have_more_tokens_than_its_tokenizer_or_fewer(grammars, vocab):
    bound = Request("bound", [1], SamplingParams(max_tokens=5, grammar=grammars.compile(Regex("[a-z]"))))
    found = masked(torch.zeros(1, vocab), [bound])
    kept = found[0].isfinite().nonzero().flatten().tolist()
    assert found.shape == (1, vocab)
    assert 20 <= len(kept) <= 26 and max(kept) < 320


@pytest.mark.parametrize("vocab", [300, 352])
@pytest.mark.parametrize("others", [0, 1])
def test_on_a_gpu_masks_are_the_same(grammars, vocab, others):
    """The code for other devices, on this one."""
    bound = Request("bound", [1], SamplingParams(max_tokens=5, grammar=grammars.compile(Regex("[a-z]"))))
    requests = [bound, *[Request("free", [1], SamplingParams(max_tokens=5))] * others, bound]
    rows, logits = [0, 1 + others], torch.randn(2 + others, vocab)
    forbidden = ~np.frombuffer(2 * bound.matcher.fill(), dtype=np.uint8).reshape(2, -1)
    assert torch.equal(_masked_on_device(logits, rows, forbidden), masked(logits, requests))


def test_the_last_random_number_draws_no_token_that_has_no_weight():
    weights = torch.tensor([[0.0, 0.3, 0.7, 0.0]])
    assert _invert(weights, torch.tensor([[1.0]])).tolist() == [2]
    assert _invert(weights, torch.tensor([[0.0]])).tolist() == [1]


def test_a_matcher_that_fails_ends_its_request_alone(greedy, monkeypatch):
    expected = _answers(make_core(_model(), running=8, budget=64), greedy)
    core = make_core(_model(), running=8, budget=64)
    requests = [Request(str(number), prompt, greedy) for number, prompt in enumerate(PROMPTS)]
    for request in requests:
        core.add(request)
    fill = Matcher.fill

    def breaks(self: Matcher) -> bytes:
        if requests[2].generated == 5 and self is requests[2].matcher:
            raise MatcherError("too large")
        return fill(self)

    monkeypatch.setattr(Matcher, "fill", breaks)
    answers = run(core)
    [failure] = core.take_failures()
    assert (failure.request.id, str(failure.told)) == ("2", "the answer's structure: too large")
    assert answers == {**expected, "2": expected["2"][:5]}


def test_tokens_against_the_grammar_fail_the_request_alone(greedy, capsys):
    core = make_core(_model(), running=8, budget=64)
    core.add(Request("wrong", PROMPTS[0], greedy, [50, 51]))
    core.add(Request("right", PROMPTS[1], greedy))
    assert "right" in run(core)
    [failure] = core.take_failures()
    assert failure.request.id == "wrong"
    assert "does not allow token" in str(failure.told)
    assert "Traceback" not in capsys.readouterr().err
