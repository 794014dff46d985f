"""Each parameter does to the distribution what it says, and a seed gives the same tokens in any company."""

import math
from collections import Counter
from typing import Any

import pytest
import torch

from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.engine.sampler import _best, sample

VOCAB = 1000  # more than the sampler's shortcut looks at


def _request(prompt=(0,), output=(), **params) -> Request:
    request = Request("id", list(prompt), SamplingParams(max_tokens=100, **params))
    request.tokens += output
    return request


def _logits(*best: float) -> torch.Tensor:
    """Probabilities `best` for the first tokens, nothing for the others."""
    row = torch.full((VOCAB,), -math.inf)
    row[: len(best)] = torch.tensor(best).log()
    return row


def _flat(seed: int = 0) -> torch.Tensor:
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * 0.1


def _counts(row: torch.Tensor, draws: int = 4000, **params) -> Counter[int]:
    requests = [_request(seed=index, **params) for index in range(draws)]
    return Counter(one.token for one in sample(row.expand(draws, -1), requests))


def _shares(row: torch.Tensor, **params) -> list[float]:
    counts = _counts(row, **params)
    return [counts[token] / counts.total() for token in range(max(counts) + 1)]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0.5}, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
        ({"top_k": 2}, [0.625, 0.375]),
        ({"top_p": 0.79}, [0.625, 0.375]),
        ({"top_p": 0.81}, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95]),
        ({"top_p": 0.0}, [1.0]),
        ({"min_p": 0.25}, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95]),
        ({"top_k": 3, "top_p": 0.5}, [1.0]),  # 0.5 / 0.95 of what top_k has left is enough
        ({"min_p": 0.4, "top_p": 0.9}, [0.625, 0.375]),
    ],
)
def test_tokens_come_as_often_as_the_parameters_say(params, expected):
    assert _shares(_logits(0.5, 0.3, 0.15, 0.05), **params) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("params", "allowed"), [({"top_p": 0.5}, None), ({"top_k": 400}, 400), ({"top_p": 0.999, "min_p": 0.8}, None)]
)
def test_flat_distributions_are_cut_exactly_too(params, allowed):
    row = _flat()
    probs, order = row.softmax(-1).sort(descending=True)
    if allowed is None and "min_p" in params:
        allowed = int((probs >= params["min_p"] * probs[0]).sum())
    elif allowed is None:
        allowed = int(((probs.cumsum(-1) - probs) < params["top_p"]).sum())
    seen = set(_counts(row, draws=5000, **params))
    assert seen <= set(order[:allowed].tolist())
    assert len(seen) > 0.97 * allowed


def test_temperature_zero_takes_the_best_token():
    rows = torch.stack([_flat(seed) for seed in range(5)])
    tokens = [one.token for one in sample(rows, [_request(temperature=0) for _ in range(5)])]
    assert tokens == rows.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [1e-6, 1.1754943e-38, 1e-40, 5e-324])
@pytest.mark.parametrize("params", [{}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"repetition_penalty": 1.3}])
def test_the_smallest_temperatures_take_the_best_token(temperature, params):
    rows = torch.stack([_flat(seed) * 100 for seed in range(5)])
    greedy = [one.token for one in sample(rows, [_request(**{**params, "temperature": 0}) for _ in range(5)])]
    assert [
        one.token for one in sample(rows, [_request(temperature=temperature, **params) for _ in range(5)])
    ] == greedy


@pytest.mark.parametrize("params", [{}, {"top_p": 0.5}, {"top_k": 3, "min_p": 0.2}])
def test_the_smallest_temperature_that_is_drawn_gives_numbers(params):
    row = torch.full((VOCAB,), -1e4)
    row[7] = 1e4
    assert {one.token for one in sample(row.expand(9, -1), [_request(temperature=1e-5, **params)] * 9)} == {7}


@pytest.mark.parametrize("top_k", [VOCAB, VOCAB + 1, 2**31, 2**63 - 1, 2**63, 10**25])
def test_a_top_k_of_the_vocabulary_or_more_is_all_tokens(top_k):
    rows = torch.stack([_flat(seed) for seed in range(20)])
    for more in ({}, {"top_p": 0.7}, {"min_p": 0.5}):
        draws = [
            [one.token for one in sample(rows, [_request(seed=seed, top_k=k, **more) for seed in range(20)])]
            for k in (0, top_k)
        ]
        assert draws[0] == draws[1]


EXTREME: list[dict[str, Any]] = [
    {"repetition_penalty": 1e-300},
    {"repetition_penalty": 5e-324, "temperature": 0},
    {"repetition_penalty": 1e-300, "temperature": 1e-5, "top_p": 1e-300},
    {"presence_penalty": -2.0, "frequency_penalty": -2.0, "temperature": 1e-5},
    {"presence_penalty": 2.0, "frequency_penalty": 2.0, "top_k": 2**63, "min_p": 1.0},
    {"top_p": 5e-324, "top_k": 1, "min_p": 1.0},
    {"top_p": 1 - 2**-53, "temperature": 2.0},
    {"logprobs": 10 * VOCAB, "stop_token_ids": frozenset([2**70, -(2**70)])},
    {"seed": -(2**63), "temperature": 2.0},
    {"seed": 2**63 + 127, "temperature": 2.0},
]


@pytest.mark.parametrize("params", EXTREME, ids=str)
def test_extreme_parameters_choose_tokens_that_they_allow(params):
    row = _flat()
    row[500:] = -math.inf
    [one] = sample(row[None], [_request(prompt=[0, 3, 600], output=[3, 4, 700] * 50, **params)])
    assert 0 <= one.token < 500
    assert one.logprobs is None or len(one.logprobs.top) == VOCAB


def test_repetition_penalty_counts_prompt_and_output():
    row = torch.tensor([2.0, 3.0, -1.0, 1.9])
    request = _request(prompt=[1], output=[2], temperature=0, repetition_penalty=1.8)
    assert sample(row[None], [request])[0].token == 0  # 3 / 1.8 < 2
    row = torch.tensor([-1.5, -1.0])
    assert sample(row[None], [_request(prompt=[1], temperature=0, repetition_penalty=1.8)])[0].token == 0


def test_presence_and_frequency_penalties_count_the_output_only():
    row = torch.tensor([2.0, 3.0])
    greedy = {"temperature": 0}
    assert sample(row[None], [_request(prompt=[1, 1, 1], presence_penalty=2, frequency_penalty=2, **greedy)])[0].token
    assert sample(row[None], [_request(output=[1, 1], presence_penalty=0.9, **greedy)])[0].token == 1
    assert sample(row[None], [_request(output=[1, 1], presence_penalty=1.1, **greedy)])[0].token == 0
    assert sample(row[None], [_request(output=[1], frequency_penalty=0.9, **greedy)])[0].token == 1
    assert sample(row[None], [_request(output=[1, 1], frequency_penalty=0.9, **greedy)])[0].token == 0


def test_penalties_leave_the_other_rows_and_the_given_logits_alone():
    rows = torch.tensor([[2.0, 3.0], [2.0, 3.0]])
    before = rows.clone()
    tokens = sample(rows, [_request(output=[1], presence_penalty=2, temperature=0), _request(temperature=0)])
    assert [one.token for one in tokens] == [0, 1]
    assert torch.equal(rows, before)


MIXED: list[dict[str, Any]] = [
    {"seed": 1},
    {"seed": 2, "top_p": 0.5},
    {"temperature": 0},
    {"seed": 3, "top_k": 5, "temperature": 1.7},
    {"seed": 4, "min_p": 0.5, "repetition_penalty": 1.2},
    {"seed": 5, "top_p": 0.9, "logprobs": 3},
]


def test_a_seed_gives_the_same_tokens_alone_and_in_a_batch():
    steps = [torch.stack([_flat(10 * step + row) for row in range(len(MIXED))]) for step in range(20)]
    together = [_request(**params) for params in MIXED]
    alone = [_request(**params) for params in MIXED]
    for logits in steps:
        batch = [one.token for one in sample(logits, together)]
        single = [sample(logits[row : row + 1], [request])[0].token for row, request in enumerate(alone)]
        assert batch == single
        for request, token in zip([*together, *alone], [*batch, *single], strict=True):
            request.tokens.append(token)


def test_the_best_tokens_of_a_row_have_the_same_probabilities_alone_and_in_a_batch():
    rows, threads = 3 * torch.randn(33, 151_936, generator=torch.Generator().manual_seed(0)), torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        together = _best(rows, 256)
        alone = [_best(rows[row : row + 1], 256) for row in range(len(rows))]
    finally:
        torch.set_num_threads(threads)
    for found, singly in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.equal(found, torch.cat(singly))


def test_without_a_seed_two_requests_differ():
    logits = torch.stack([_flat(row) for row in range(40)])
    draws = [[one.token for one in sample(logits, [_request() for _ in range(40)])] for _ in range(2)]
    assert draws[0] != draws[1]


def test_logprobs_are_the_models_own_whatever_the_parameters():
    row = _logits(0.5, 0.3, 0.15, 0.05)
    request = _request(output=[0], logprobs=2, temperature=0, presence_penalty=2.0)
    [one] = sample(row[None], [request])
    assert one.token == 1
    assert one.logprobs is not None
    assert one.logprobs.chosen == pytest.approx(math.log(0.3))
    assert [token for token, _ in one.logprobs.top] == [0, 1]
    assert [value for _, value in one.logprobs.top] == pytest.approx([math.log(0.5), math.log(0.3)])


def test_only_who_asks_gets_logprobs_and_as_many_as_asked():
    rows = torch.stack([_flat(row) for row in range(3)])
    samples = sample(rows, [_request(), _request(logprobs=0), _request(logprobs=4)])
    assert samples[0].logprobs is None
    assert [len(one.logprobs.top) for one in samples[1:] if one.logprobs] == [0, 4]
