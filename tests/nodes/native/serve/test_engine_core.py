"""Scheduler, block manager and engine core together, under random load, with a fake model."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import FinishReason, Request, RequestTooLongError, SamplingParams
from slurminfer.nodes.native.options import EngineOptions

from ....support.fake_model import END, VOCAB, FakeModel, alone, make_core, make_request, run

pytestmark = pytest.mark.slow

PROMPTS = st.lists(st.integers(0, 2), min_size=1, max_size=20)  # few tokens: prefixes are often shared


METHODS = st.sampled_from(["none", "ngram", "draft"])


@settings(max_examples=300)
@given(
    data=st.data(), block_size=st.integers(1, 4), running=st.integers(1, 5), extra_budget=st.integers(0, 12),
    method=METHODS, context=st.integers(2, 40), depth=st.integers(1, 3),
)  # fmt: skip
def test_every_request_ends_with_the_tokens_that_it_gets_alone(
    data, block_size, running, extra_budget, method, context, depth
):
    requests = data.draw(st.lists(st.tuples(PROMPTS, st.integers(1, 12)), min_size=1, max_size=10))
    longest = max(-(-(len(prompt) + max_tokens) // block_size) for prompt, max_tokens in requests)
    model = FakeModel(longest + data.draw(st.integers(0, 6)), block_size, depth=depth)
    core = make_core(model, running=running, budget=running + extra_budget, method=method, context=context)
    pending = [make_request(str(index), *request) for index, request in enumerate(requests)]
    tokens: dict[str, list[int]] = {}
    while pending or core.busy:
        if pending and (not core.busy or data.draw(st.booleans())):
            core.add(pending.pop(0))
        for output in core.step():
            tokens.setdefault(output.request.id, []).append(output.token)
    assert tokens == {str(index): alone(*request) for index, request in enumerate(requests)}
    assert core.stats().kv_blocks_used == 0
    for step in model.steps:
        assert len(step) <= running
        assert sum(len(chunk.tokens) for chunk in step) <= running + extra_budget


@settings(max_examples=50)
@given(
    # After each step whom to abort, drawn beforehand: how many steps there are depends on the clock.
    aborts=st.lists(st.none() | st.integers(0, 7), max_size=40),
    requests=st.lists(st.tuples(PROMPTS, st.integers(1, 12)), min_size=1, max_size=8), method=METHODS,
    depth=st.integers(1, 3),
)  # fmt: skip
def test_aborting_at_any_time_gives_the_blocks_back_and_disturbs_nobody(aborts, requests, method, depth):
    core = make_core(FakeModel(20, 2, depth=depth), method=method)
    for index, request in enumerate(requests):
        core.add(make_request(str(index), *request))
    aborted: set[str] = set()
    tokens: dict[str, list[int]] = {}
    while core.busy:
        for output in core.step():
            tokens.setdefault(output.request.id, []).append(output.token)
        chosen = aborts.pop(0) if aborts else None
        if chosen is not None:
            aborted.add(id := str(chosen % len(requests)))
            core.abort(id)
    for index, request in enumerate(requests):
        said, whole = tokens.get(str(index), []), alone(*request)
        assert said == (whole[: len(said)] if str(index) in aborted else whole)
    assert core.stats().kv_blocks_used == 0


def test_requests_that_outgrow_the_cache_together_are_preempted_and_still_end_right():
    core = make_core(FakeModel(8, 4), budget=32)
    requests = {str(index): ([index, 1, 2, 0, 1], 24) for index in range(4)}
    for id, request in requests.items():
        core.add(make_request(id, *request, end=None))
    assert run(core) == {id: alone(*request, end=None) for id, request in requests.items()}
    assert core.stats().preemptions > 0


def test_guesses_save_steps_and_are_counted():
    plain, guessing = FakeModel(100, 4), FakeModel(100, 4)
    core = make_core(guessing, method="draft")
    for each in (make_core(plain), core):
        each.add(make_request("a", [0, 1, 2], 60, end=None))
        assert run(each) == {"a": alone([0, 1, 2], 60, end=None)}
    stats = core.stats()
    assert len(guessing.steps) == len(plain.steps) - stats.speculative_accepted_tokens < 40
    assert 0 < stats.speculative_accepted_tokens < stats.speculative_draft_tokens


def test_decodes_go_on_while_a_long_prompt_is_computed_in_pieces():
    model = FakeModel(100, 4)
    core = make_core(model, budget=8)
    core.add(make_request("first", [0], 40))
    core.step()
    core.add(make_request("long", [1] * 60, 1))
    for _ in range(8):
        core.step()
    mixed = [step for step in model.steps if len(step) == 2]
    assert len(mixed) >= 8
    assert all(len(step[0].tokens) == 1 and len(step[1].tokens) <= 7 for step in mixed)


@pytest.mark.parametrize(("age_weight", "first"), [(float("inf"), "long"), (1e-6, "short")])
def test_a_short_prompt_goes_before_a_long_one_unless_that_has_waited(age_weight, first):
    options = EngineOptions(model=Path(), max_running_requests=4, max_batch_tokens=8, age_weight=age_weight)
    core = EngineCore(FakeModel(100, 4), options)
    core.add(make_request("long", [1] * 60, 2))
    core.add(make_request("short", [2, 0], 2))
    ends = [output.request.id for _ in range(20) for output in (core.step() if core.busy else [])]
    assert ends[0] == first


def test_a_long_prompt_that_has_waited_goes_before_short_ones():
    # A nanosecond of waiting makes up for a token.
    options = EngineOptions(model=Path(), max_running_requests=1, max_batch_tokens=8, age_weight=1e9)
    core = EngineCore(FakeModel(100, 4), options)
    core.add(make_request("runs", [0], 30, end=None))
    core.step()
    core.add(make_request("long", [1] * 40, 1))
    core.add(make_request("short", [2, 0], 1))
    ends = []
    while core.busy:
        ends += [output.request.id for output in core.step() if output.finish]
    assert ends == ["runs", "long", "short"]


def test_a_prompt_seen_before_is_computed_from_its_last_block_on():
    model = FakeModel(100, 4)
    core = make_core(model)
    prompt = [1, 2, 0, 1, 2, 2, 1, 0]  # two full blocks
    core.add(make_request("first", prompt, 1))
    run(core)
    model.steps.clear()
    core.add(again := make_request("again", prompt, 1))
    assert run(core) == {"again": alone(prompt, 1)}
    assert again.cached == 4  # the second block holds the last token, which must be computed
    assert model.steps[0][0].start == 4
    assert core.stats().prefix_cache_hit_tokens == 4


def test_a_step_computes_tokens_of_a_prompt_or_generated_ones_but_never_both():
    """A request that is preempted computes both again, each as it was computed before."""
    model = FakeModel(14, 2)
    core = make_core(model, budget=32)
    requests = {str(index): ([index, 1, 2, 0, 1], 14) for index in range(3)}
    for id, request in requests.items():
        core.add(make_request(id, *request, end=None))
    assert run(core) == {id: alone(*request, end=None) for id, request in requests.items()}
    assert core.stats().preemptions > 0
    chunks = [chunk for step in model.steps for chunk in step]
    assert all(chunk.prompt == (chunk.start < 5) for chunk in chunks)
    assert all(not chunk.prompt or chunk.start + len(chunk.tokens) <= 5 for chunk in chunks)


def test_generated_tokens_are_found_by_the_next_turn_of_a_conversation():
    core = make_core(FakeModel(100, 2))
    prompt = [1, 1, 2, 0]
    core.add(make_request("turn 1", prompt, 6))
    answer = run(core)["turn 1"]
    core.add(second := make_request("turn 2", [*prompt, *answer, 2, 2], 2))
    run(core)
    assert second.cached is not None
    assert second.cached >= (len(prompt) + len(answer) - 1) // 2 * 2


@pytest.mark.parametrize(
    ("context_length", "blocks", "message"),
    [
        (10, 100, "This model's maximum context length is 10 tokens, but 8 prompt tokens + max_tokens 3 = 11 tokens "
                  "were requested"),
        (100, 5, "This model's maximum context length is 10 tokens, which is what the KV cache holds, but 8 prompt "
                 "tokens + max_tokens 3 = 11 tokens were requested"),
    ],
)  # fmt: skip
def test_a_request_that_can_never_fit_is_refused_with_both_numbers(context_length, blocks, message):
    core = make_core(FakeModel(blocks, 2, context_length))
    with pytest.raises(RequestTooLongError) as refused:
        core.add(make_request("long", [0] * 8, 3))
    assert str(refused.value) == message
    core.add(make_request("fits", [0] * 8, 2))
    assert run(core) == {"fits": alone([0] * 8, 2)}


def test_an_end_token_and_max_tokens_say_why_a_sequence_ended():
    core = make_core(FakeModel(100, 4))
    core.add(make_request("a", [0], 1))
    finishes = [output.finish for output in core.step()]
    assert finishes == [FinishReason.STOP if alone([0], 1) == [END] else FinishReason.LENGTH]
    request = Request("b", [0], SamplingParams(max_tokens=9, temperature=0, stop_token_ids=frozenset(range(VOCAB))))
    core.add(request)
    assert [output.finish for output in core.step()] == [FinishReason.STOP]


def test_only_requests_of_one_salt_share_the_prefix_cache():
    core = make_core(FakeModel(100, 4))
    prompt = [1, 2, 0, 1, 2, 2, 1, 0, 4]
    cached = []
    for number, salt in enumerate(["", "a", "a", "b", ""]):
        request = Request(str(number), prompt, SamplingParams(max_tokens=2, temperature=0, cache_salt=salt))
        core.add(request)
        assert run(core) == {str(number): alone(prompt, 2, end=None)}
        cached.append(request.cached)
    assert cached == [0, 0, 8, 0, 8]
