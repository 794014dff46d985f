"""Log-probabilities of prompts: whole and exact, however the prompt is cut, cached, preempted or failed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.prompt_logprobs import PromptLogprobs
from slurminfer.nodes.native.engine.request import Output, Request, SamplingParams
from slurminfer.nodes.native.model.logits_budget import LogitsBudget, logits_budget
from slurminfer.nodes.native.options import EngineOptions

from ....support.fake_model import VOCAB, FakeModel, alone, make_core, make_request, next_token, run

PROMPT = [index % 5 for index in range(30)]
TOTAL = torch.tensor([1.0] + [0.0] * (VOCAB - 1)).logsumexp(-1).item()  # of each row of the fake's logits


def _request(id: str, prompt: Sequence[int], max_tokens: int = 1, top: int = 2, **params: Any) -> Request:
    params = {"max_tokens": max_tokens, "temperature": 0, "prompt_logprobs": top, **params}
    return Request(id, list(prompt), SamplingParams(**params))


def _core(model: FakeModel, *, rows: int = 1000, budget: int = 16, running: int = 4) -> EngineCore:
    options = EngineOptions(model=Path(), max_running_requests=running, max_batch_tokens=budget)
    return EngineCore(model, options, logits=LogitsBudget(0, 1, rows))


def _expected(prompt: Sequence[int]) -> list[tuple[float, int]]:
    """Log-probability and rank that the fake gives to each token but the first."""
    hits = [next_token(prompt[:place]) == prompt[place] for place in range(1, len(prompt))]
    return [(1 - TOTAL, 1) if hit else (-TOTAL, 2) for hit in hits]


def _scores(request: Request) -> list[tuple[float, int]]:
    assert request.prompt_logprobs is not None
    return [(chosen, rank) for chosen, rank, _ in request.prompt_logprobs]


def _assert_whole(request: Request) -> None:
    prompt = request.tokens[: request.prompt_length]
    for (chosen, rank), (logprob, place) in zip(_scores(request), _expected(prompt), strict=True):
        assert chosen == pytest.approx(logprob, abs=1e-6)
        assert rank == place
    for place, (_, _, top) in enumerate(request.prompt_logprobs or ()):
        assert top[0][0] == next_token(prompt[: place + 1])
        assert top[0][1] == pytest.approx(1 - TOTAL, abs=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 17, 30])
@pytest.mark.parametrize(("rows", "budget"), [(1000, 16), (3, 16), (1, 16), (16, 5)])
@pytest.mark.parametrize("max_tokens", [0, 1, 3])
def test_every_token_but_the_first_has_one_and_the_answer_is_as_without(length, rows, budget, max_tokens):
    model = FakeModel(100, 4)
    core = _core(model, rows=rows, budget=budget)
    core.add(request := _request("a", PROMPT[:length], max_tokens))
    outputs = [output for _ in range(100) if core.busy for output in core.step()]
    assert not core.busy
    _assert_whole(request)
    if max_tokens:
        assert [output.token for output in outputs] == alone(PROMPT[:length], max_tokens, end=None)
    else:
        assert [(output.sample, output.finish) for output in outputs] == [(None, "length")]
    assert core.stats().generation_tokens == max_tokens
    assert core.stats().kv_blocks_used == 0


def test_a_step_has_no_more_rows_of_logits_than_there_is_memory_for():
    model = FakeModel(200, 4)
    core = _core(model, rows=6, budget=64)
    for name in "abc":
        core.add(_request(name, [*PROMPT, ord(name) % 5]))
    core.add(make_request("plain", PROMPT, 2))
    run(core)
    wanted = [sum(chunk.num_logits for chunk in step) for step in model.steps]
    assert max(wanted) <= 6 + 4  # and one for each that is sampled


def test_one_that_waits_for_rows_holds_up_nobody():
    core = _core(FakeModel(200, 4), rows=2, budget=64)
    core.add(_request("scores", [4] * 25))
    core.add(other := _request("scores too", [3] * 26))
    core.step()
    core.add(make_request("plain", [0, 1, 2], 1))
    assert [output.request.id for output in core.step()] == ["plain"]
    run(core)
    _assert_whole(other)


def test_a_prompt_in_the_prefix_cache_is_computed_again_and_still_shared_afterwards():
    model = FakeModel(100, 4)
    core = _core(model)
    core.add(make_request("plain", PROMPT, 1))
    run(core)
    core.add(scored := _request("scored", PROMPT))
    run(core)
    _assert_whole(scored)
    assert scored.cached == 0
    core.add(after := make_request("after", PROMPT, 1))
    assert run(core) == {"after": alone(PROMPT, 1)}
    assert after.cached == len(PROMPT) // 4 * 4


@pytest.mark.parametrize("depth", [1, 2])
def test_preemption_in_the_middle_of_a_prompt_loses_and_repeats_none(depth):
    model = FakeModel(12, 4, depth=depth)
    core = _core(model, rows=1, budget=8)
    core.add(make_request("older", [1, 2], 46, end=None))  # ranks first, and grows
    core.add(scored := _request("scored", PROMPT[:28], 9))
    had: list[int] = []
    said: dict[str, list[int]] = {}
    while core.busy:
        preemptions = core.stats().preemptions
        for output in core.step():
            said.setdefault(output.request.id, []).append(output.token)
        if core.stats().preemptions > preemptions:
            had.append(len(scored.prompt_logprobs or ()))
    assert any(0 < count < 27 for count in had)
    assert said == {"older": alone([1, 2], 46, end=None), "scored": alone(PROMPT[:28], 9, end=None)}
    _assert_whole(scored)


def test_one_that_is_paused_in_the_middle_of_its_prompt_goes_on_where_it_was():
    model = FakeModel(100, 4)
    core = _core(model, rows=7)
    core.add(request := _request("a", PROMPT))
    core.step()
    core.pause(["a"])
    core.step()
    assert len(request.prompt_logprobs or ()) == 7
    model.steps.clear()
    core.resume(["a"])
    run(core)
    _assert_whole(request)
    assert model.steps[0][0].start == 4  # the block before the first place that has none


class _Damaged(PromptLogprobs):
    def add(self, logits: torch.Tensor, tokens: Sequence[int]) -> None:
        raise ArithmeticError("no")


def test_one_that_fails_ends_alone():
    core = _core(FakeModel(100, 4), budget=64)
    bad, good = _request("bad", PROMPT), _request("good", PROMPT[1:])
    bad.prompt_logprobs = _Damaged(1)
    core.submit([bad, good])
    assert run(core) == {"good": alone(PROMPT[1:], 1)}
    assert [failure.request.id for failure in core.take_failures()] == ["bad"]
    _assert_whole(good)


def test_with_draft_tokens_beside_them():
    core = make_core(FakeModel(100, 4), method="draft", budget=64)
    core.add(first := _request("first", PROMPT, 40))
    outputs: list[Output] = [*core.step(), *core.step()]
    core.add(second := _request("second", PROMPT[3:], 20))
    said: dict[str, list[int]] = {}
    while core.busy:
        outputs += core.step()
    for output in outputs:
        said.setdefault(output.request.id, []).append(output.token)
    assert said == {"first": alone(PROMPT, 40, end=None), "second": alone(PROMPT[3:], 20, end=None)}
    assert core.stats().speculative_accepted_tokens > 0
    _assert_whole(first)
    _assert_whole(second)


def test_they_are_those_of_a_softmax_over_all_tokens():
    logits = torch.randn(5000, 700, generator=torch.Generator().manual_seed(0))  # more than one piece
    tokens = [place * 7 % 700 for place in range(5000)]
    found = PromptLogprobs(3)
    found.add(logits[:4000], tokens[:4000])
    found.add(logits[4000:], tokens[4000:])
    expected = logits.log_softmax(-1)
    assert len(found) == 5000
    for row, token, (chosen, rank, top) in zip(expected, tokens, found, strict=True):
        assert chosen == pytest.approx(row[token].item(), abs=1e-5)
        assert rank == int((row > row[token]).sum()) + 1
        assert [id for id, _ in top] == row.topk(3).indices.tolist()
        assert rank > 3 or top[rank - 1] == (token, chosen)  # to the bit


def test_prompts_get_the_rows_that_sampling_leaves():
    options = EngineOptions(model=Path(), max_running_requests=64, max_batch_tokens=1024)
    budget = logits_budget(options, 128_000)
    assert [budget.prompt_rows(running) for running in (1, 32, 60, 64)] == [126, 64, 16, 16]
    assert logits_budget(options, 128_000, "cuda").prompt_rows(64) == 524
    guessing = replace(options, speculative="ngram", draft_tokens=7)
    assert logits_budget(guessing, 128_000).prompt_rows(32) == 2 * (64 - 32) * 8
