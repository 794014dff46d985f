"""The choices of one prompt: it is computed once, whatever becomes of the choice that computes it."""

from collections.abc import Sequence

import pytest

from slurminfer.nodes.native.engine.block_manager import BlockManager
from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import Request, SamplingParams

from ....support.fake_model import FakeModel, alone, make_core, run

BLOCK = 4
PROMPT = [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1, 2, 4]
SHARED = len(PROMPT) // BLOCK * BLOCK  # tokens in full blocks
TOKENS = 6


def choices(count: int, prompt: list[int], told: Sequence[int] = (), scored: bool = False) -> list[Request]:
    params = SamplingParams(max_tokens=TOKENS, temperature=0, prompt_logprobs=0 if scored else None)
    return [Request(f"c{index}", prompt, params, told) for index in range(count)]


@pytest.fixture
def model() -> FakeModel:
    return FakeModel(400, BLOCK)


@pytest.fixture
def core(model: FakeModel) -> EngineCore:
    return make_core(model, running=16, budget=200)


def prefilled(model: FakeModel) -> int:
    """Tokens of prompts that were computed."""
    chunks = [chunk for step in model.steps for chunk in step]
    return sum(max(min(chunk.start + len(chunk.tokens), len(PROMPT)) - chunk.start, 0) for chunk in chunks)


def test_a_prompt_is_computed_once_for_all_its_choices(model, core):
    core.submit(choices(5, PROMPT))
    assert run(core) == {f"c{index}": alone(PROMPT, TOKENS, end=None) for index in range(5)}
    assert prefilled(model) == len(PROMPT) + 4 * (len(PROMPT) - SHARED)
    assert [len(step) for step in model.steps[:2]] == [1, 5]


def test_choices_that_go_on_share_their_prompt_too(model, core):
    told = alone(PROMPT, 3, end=None)
    core.submit(choices(3, PROMPT, told))
    assert run(core) == {f"c{index}": alone(PROMPT, TOKENS, end=None)[3:] for index in range(3)}
    assert prefilled(model) == len(PROMPT) + 2 * (len(PROMPT) - SHARED)


def test_each_prompt_of_a_request_is_begun_at_once(model, core):
    requests = [Request(f"{name}{index}", prompt, SamplingParams(max_tokens=2, temperature=0))
                for name, prompt in (("a", PROMPT), ("b", PROMPT[::-1])) for index in range(2)]  # fmt: skip
    core.submit(requests)
    core.step()
    assert len(model.steps[0]) == 2
    assert run(core).keys() == {"a0", "a1", "b0", "b1"}


def test_prompts_that_are_equal_by_chance_wait_for_nobody(model, core):
    core.submit(choices(1, PROMPT))
    core.submit([Request("other", list(PROMPT), SamplingParams(max_tokens=2, temperature=0))])
    core.step()
    assert len(model.steps[0]) == 2


def test_choices_of_a_short_prompt_do_not_wait(model, core):
    core.submit(choices(3, PROMPT[:BLOCK]))
    core.step()
    assert len(model.steps[0]) == 3


def test_choices_whose_prompts_are_scored_compute_it_themselves(model, core):
    core.submit(choices(3, PROMPT, scored=True))
    assert run(core).keys() == {"c0", "c1", "c2"}
    assert prefilled(model) == 3 * len(PROMPT)


def test_others_go_on_when_the_first_is_aborted(model):
    core = make_core(model, running=4, budget=BLOCK)
    core.submit(choices(4, PROMPT))
    core.step()
    assert core.stats().waiting_requests == 3
    core.abort_all(["c0", "c2"])
    assert run(core) == {id: alone(PROMPT, TOKENS, end=None) for id in ("c1", "c3")}
    assert prefilled(model) == len(PROMPT) + len(PROMPT) - SHARED


def test_others_go_on_when_the_first_fails(model, core, monkeypatch):
    def allocate(blocks: BlockManager, request: Request, *, spare: int) -> bool:
        assert request.id != "c0", "no blocks for it"
        return allocated(blocks, request, spare=spare)

    allocated = BlockManager.allocate
    monkeypatch.setattr(BlockManager, "allocate", allocate)
    core.submit(choices(3, PROMPT))
    assert run(core).keys() == {"c1", "c2"}
    assert prefilled(model) == len(PROMPT) + len(PROMPT) - SHARED


@pytest.mark.parametrize("paused", [["c1", "c2"], ["c0"], ["c0", "c1", "c2"]])
def test_what_is_paused_waits_until_it_is_resumed(model, paused):
    core = make_core(model, running=4, budget=BLOCK)
    core.submit(choices(3, PROMPT))
    core.step()
    core.pause(paused)
    going = {"c0", "c1", "c2"} - {*paused}
    assert run(core).keys() == going
    core.resume(paused)
    assert run(core).keys() == {*paused}
    assert prefilled(model) <= len(PROMPT) + 3 * (len(PROMPT) - SHARED)
