"""What a request may say of single tokens: bias, bans, the only ones allowed, a least length."""

import math
from collections import Counter
from typing import Any

import pytest
import torch

from slurminfer.nodes.native.engine import logit_rules
from slurminfer.nodes.native.engine.logit_rules import apply_rules
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.engine.sampler import sample
from slurminfer.nodes.native.engine.token_rules import TokenRules

from ....support.fake_model import END, VOCAB, FakeModel, alone, make_core, make_request, run


def _request(id: str = "id", prompt=(0,), output=(), **params: Any) -> Request:
    rules = {name: params.pop(name) for name in ("bias", "allowed", "bad_words") if name in params}
    params = {"max_tokens": 100, "rules": TokenRules(**rules) if rules else None, **params}
    request = Request(id, list(prompt), SamplingParams(**params))
    request.tokens = [*request.tokens, *output]
    return request


def _row(*probabilities: float) -> torch.Tensor:
    row = torch.full((300,), -30.0)
    row[: len(probabilities)] = torch.tensor(probabilities).log()
    return row


def _shares(row: torch.Tensor, draws: int = 4000, **params: Any) -> dict[int, float]:
    requests = [_request(seed=index, **params) for index in range(draws)]
    counts = Counter(one.token for one in sample(row.expand(draws, -1), requests))
    return {token: count / draws for token, count in counts.items()}


def test_bias_is_added_to_logits():
    shares = _shares(_row(0.5, 0.25, 0.25), bias={0: -math.log(2), 2: math.log(2)})
    assert shares == pytest.approx({0: 0.25, 1: 0.25, 2: 0.5}, abs=0.03)


@pytest.mark.parametrize("count", [3, 300])
@pytest.mark.parametrize("allowed", [None, frozenset(range(50, 290))])
def test_rules_for_all_tokens_say_the_same_as_for_few_and_are_prepared_once_for_all_choices(
    count, allowed, monkeypatch
):
    logits = torch.randn(6, 300)
    bias = {token: -100.0 if token % 5 == 0 else token / 100 for token in range(60, 60 + min(count, 240))}
    made = []
    make = logit_rules._make_tensors

    def counted(*given):
        made.append(given)
        return make(*given)

    monkeypatch.setattr(logit_rules, "_make_tensors", counted)
    params = SamplingParams(max_tokens=9, rules=TokenRules(bias, allowed))
    found = apply_rules(logits, [Request(str(index), [0], params) for index in range(6)])
    expected = logits.clone()
    for token in range(300):
        if bias.get(token) == -100 or (allowed is not None and token not in allowed):
            expected[:, token] = -torch.inf
        else:
            expected[:, token] += bias.get(token, 0.0)
    assert torch.equal(found, expected)
    assert len(made) == 1


def test_minus_100_bans_whatever_the_model_says():
    row = _row(0.5, 0.5)
    row[7] = 500.0
    assert set(_shares(row, draws=200, bias={7: -100})) == {0, 1}
    assert set(_shares(row, draws=200, bias={7: -99})) == {7}
    assert set(_shares(row, draws=1, bias={7: -100}, temperature=0)) <= {0, 1}


def test_100_forces_whatever_the_model_says():
    row = _row(1.0)
    row[7] = -500.0
    row[8] = -500.0 + math.log(3)
    assert _shares(row, bias={7: 100, 8: 100}) == pytest.approx({7: 0.25, 8: 0.75}, abs=0.03)
    assert set(_shares(row, draws=1, bias={7: 100}, temperature=0)) == {7}


@pytest.mark.parametrize("params", [{}, {"top_p": 0.9}, {"top_k": 2}, {"temperature": 0}, {"min_p": 0.1}])
def test_only_allowed_tokens_come_and_as_often_as_among_each_other(params):
    shares = _shares(_row(0.5, 0.2, 0.2, 0.1), allowed=frozenset([1, 3]), bias={3: math.log(2)}, **params)
    assert set(shares) <= {1, 3}
    if params.get("temperature") != 0:
        assert shares == pytest.approx({1: 0.5, 3: 0.5}, abs=0.03)


def test_a_fraction_that_rounds_to_one_finds_no_banned_token():
    request = _request(bias={299: -100})
    request._uniform = len(request.tokens), 1 - 2**-53
    [drawn] = sample(torch.zeros(1, 300), [request])
    assert drawn.token == 298


def test_bad_words_never_come_but_their_parts_do():
    row = _row(0.5, 0.5)
    words = ((0, 0), (1,))
    assert set(_shares(row, draws=50, bad_words=((1,),))) == {0}
    assert set(_shares(row, draws=50, bad_words=((0, 0),))) == {0, 1}  # the prompt's own is no part of the answer
    assert set(_shares(row, draws=50, output=(0,), bad_words=((0, 0),))) == {1}
    assert set(_shares(row, draws=50, output=(1,), bad_words=words[:1])) == {0, 1}


@pytest.mark.parametrize("generated", [0, 2, 3])
def test_end_tokens_wait_for_the_least_length(generated):
    params: dict[str, Any] = {"min_tokens": 3, "stop_token_ids": frozenset([0, 1])}
    shares = _shares(_row(0.6, 0.3, 0.1), draws=300, output=[2] * generated, **params)
    assert set(shares) == ({0, 1, 2} if generated == 3 else {2})


def test_bans_that_would_leave_nothing_are_no_bans():
    params: dict[str, Any] = {"min_tokens": 3, "stop_token_ids": frozenset([0])}
    assert set(_shares(_row(0.6, 0.4), draws=50, allowed=frozenset([0]), **params)) == {0}


def test_penalties_leave_banned_tokens_banned():
    shares = _shares(_row(0.6, 0.4), draws=100, output=(0, 0), bias={0: -100}, repetition_penalty=1.5,
                     presence_penalty=-2.0, frequency_penalty=-2.0)  # fmt: skip
    assert set(shares) == {1}


def test_neighbours_and_logprobs_are_as_without_rules():
    rows = torch.randn(3, 300, generator=torch.Generator().manual_seed(1))
    before = rows.clone()
    plain = [_request(str(index), seed=index, logprobs=2) for index in range(3)]
    alone_ = [sample(rows[index : index + 1], [request])[0] for index, request in enumerate(plain)]
    mixed = [_request(str(index), seed=index, logprobs=2) for index in range(3)]
    mixed[1] = _request("1", seed=1, logprobs=2, bias={5: 100})
    found = sample(rows, mixed)
    assert (found[0], found[2]) == (alone_[0], alone_[2])
    assert found[1].token == 5
    assert found[1].logprobs is not None
    assert found[1].logprobs.chosen == pytest.approx(rows[1].log_softmax(-1)[5].item(), abs=1e-5)
    assert torch.equal(rows, before)


def _until_long_enough(prompt: list[int], max_tokens: int, least: int) -> list[int]:
    """What the fake says if its end token is replaced by the token it ranks next, the first of all others."""
    said: list[int] = []
    while len(said) < max_tokens and said[-1:] != [END]:
        [token] = alone([*prompt, *said], 1)
        said.append(0 if token == END and len(said) < least else token)
    return said


@pytest.mark.parametrize("method", ["none", "draft", "ngram"])
def test_least_lengths_and_bans_hold_with_draft_tokens(method):
    core = make_core(FakeModel(200, 4), method=method, budget=64)
    prompts = [[index % VOCAB, index // 3] for index in range(6)]
    for index, prompt in enumerate(prompts):
        params = SamplingParams(max_tokens=60, temperature=0, stop_token_ids=frozenset([END]), min_tokens=30)
        core.add(Request(str(index), prompt, params))
    core.add(make_request("plain", [5, 5], 40))
    banned = TokenRules(bias=dict.fromkeys(range(0, VOCAB, 2), -100.0))
    core.add(odd := Request("odd", [2, 2], SamplingParams(max_tokens=50, temperature=0, rules=banned)))
    found = run(core)
    assert found.pop("plain") == alone([5, 5], 40)
    assert found.pop("odd") == odd.tokens[2:]
    assert len(odd.tokens) == 52 and all(token % 2 for token in odd.tokens[2:])
    assert found == {str(index): _until_long_enough(prompt, 60, 30) for index, prompt in enumerate(prompts)}
    assert method != "draft" or core.stats().speculative_accepted_tokens > 0
