"""Scheduler, block manager and engine core together, under random load, with a fake model.

The fake computes no network: its KV cache holds token ids, and the next token is a function of the history that it
reads back from the blocks. A wrong block, a block overwritten or a token skipped changes what it says.
"""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import FinishReason, Request, RequestTooLongError, SamplingParams
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.nodes.native.options import EngineOptions, Speculative

pytestmark = pytest.mark.slow

VOCAB = 17
END = 3


class FakeModel:
    """Deterministic, and strict about what it is handed."""

    compiled = False
    communication_s = 0.0

    def __init__(
        self, num_blocks: int, block_size: int, context_length: int = 10_000, *, errs: int = 0, depth: int = 1
    ) -> None:
        """It says something else every `errs` tokens or so, and computes up to `depth` steps at once."""
        self.depth = depth
        self._begun: deque[tuple[list[Sequence[int]], torch.Tensor]] = deque()
        self.vocab_size, self.context_length, self._errs = VOCAB, context_length, errs
        self.num_blocks, self.block_size = num_blocks, block_size
        self._cache: list[int | None] = [None] * (num_blocks * block_size)
        self.steps: list[list[Chunk]] = []

    def close(self) -> None:
        """There is nobody else."""

    def begin(self, chunks: Sequence[Chunk]) -> None:
        sequences = [chunk.blocks for chunk in chunks]
        assert len(self._begun) < self.depth
        assert not any(one is other for step, _ in self._begun for one in step for other in sequences), "in two steps"
        self._begun.append((sequences, self.forward(chunks)))

    def finish(self) -> torch.Tensor:
        return self._begun.popleft()[1]

    def forward(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        assert chunks, "an empty step"
        self.steps.append(list(chunks))
        written: set[int] = set()
        for chunk in chunks:
            assert chunk.tokens
            for offset, token in enumerate(chunk.tokens):
                slot = self._slot(chunk, chunk.start + offset)
                # A draft computes what sequences share once for each.
                assert slot not in written or (self._errs and self._cache[slot] == token), "two write one place"
                written.add(slot)
                self._cache[slot] = token
        logits = torch.zeros(sum(chunk.num_logits for chunk in chunks), VOCAB)
        ends = [
            (chunk, chunk.start + len(chunk.tokens) - back)
            for chunk in chunks
            for back in reversed(range(chunk.num_logits))
        ]
        for row, (chunk, length) in zip(logits, ends, strict=True):
            history = [self._cache[self._slot(chunk, position)] for position in range(length)]
            wrong = self._errs and hash((*history, "wrong")) % self._errs == 0
            row[(_next(history) + int(wrong)) % VOCAB] = 1
        return logits

    def _slot(self, chunk: Chunk, position: int) -> int:
        return chunk.blocks[position // self.block_size] * self.block_size + position % self.block_size


def _next(history: Sequence[int | None]) -> int:
    return hash(tuple(history)) % VOCAB


def _alone(prompt: Sequence[int], max_tokens: int, end: int | None = END) -> list[int]:
    """What the fake must say to `prompt`."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + max_tokens and (len(tokens) == len(prompt) or tokens[-1] != end):
        tokens.append(_next(tokens))
    return tokens[len(prompt) :]


def _core(
    model: FakeModel, *, running: int = 4, budget: int = 16, method: Speculative = "none", context: int = 10_000
) -> EngineCore:
    """With `method` draft, by a model that errs in a third of its guesses and has room for `context` tokens."""
    options = EngineOptions(
        model=Path(), max_running_requests=running, max_batch_tokens=budget, speculative=method,
        draft_model=Path() if method == "draft" else None, draft_tokens=4,
    )  # fmt: skip
    draft = FakeModel(model.num_blocks, model.block_size, context, errs=3) if method == "draft" else None
    core = EngineCore(model, options, draft)
    if core._speculation is not None:  # whether guesses pay is another test's matter
        budget_ = core._speculation._budget
        budget_.share = lambda ids, room: [min(4, max(room - 4 * i, 0)) for i in range(len(ids))]  # type: ignore[method-assign]
    return core


def _request(id: str, prompt: Sequence[int], max_tokens: int, end: int | None = END) -> Request:
    ends = frozenset() if end is None else frozenset([end])
    params = SamplingParams(max_tokens=max_tokens, temperature=0, stop_token_ids=ends)
    return Request(id, prompt, params)


def _run(core: EngineCore) -> dict[str, list[int]]:
    """Step until nothing is left; the tokens of each request."""
    tokens: dict[str, list[int]] = {}
    steps = 0
    while core.busy:
        for output in core.step():
            tokens.setdefault(output.request.id, []).append(output.sample.token)
        steps += 1
        assert steps < 5000, "it hangs"
    return tokens


PROMPTS = st.lists(st.integers(0, 2), min_size=1, max_size=20)  # few tokens: prefixes are often shared


METHODS = st.sampled_from(["none", "ngram", "draft"])


@settings(max_examples=1000)
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
    core = _core(model, running=running, budget=running + extra_budget, method=method, context=context)
    pending = [_request(str(index), *request) for index, request in enumerate(requests)]
    tokens: dict[str, list[int]] = {}
    while pending or core.busy:
        if pending and (not core.busy or data.draw(st.booleans())):
            core.add(pending.pop(0))
        for output in core.step():
            tokens.setdefault(output.request.id, []).append(output.sample.token)
    assert tokens == {str(index): _alone(*request) for index, request in enumerate(requests)}
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
    core = _core(FakeModel(20, 2, depth=depth), method=method)
    for index, request in enumerate(requests):
        core.add(_request(str(index), *request))
    aborted: set[str] = set()
    tokens: dict[str, list[int]] = {}
    while core.busy:
        for output in core.step():
            tokens.setdefault(output.request.id, []).append(output.sample.token)
        chosen = aborts.pop(0) if aborts else None
        if chosen is not None:
            aborted.add(id := str(chosen % len(requests)))
            core.abort(id)
    for index, request in enumerate(requests):
        said, whole = tokens.get(str(index), []), _alone(*request)
        assert said == (whole[: len(said)] if str(index) in aborted else whole)
    assert core.stats().kv_blocks_used == 0


def test_requests_that_outgrow_the_cache_together_are_preempted_and_still_end_right():
    core = _core(FakeModel(8, 4), budget=32)
    requests = {str(index): ([index, 1, 2, 0, 1], 24) for index in range(4)}
    for id, request in requests.items():
        core.add(_request(id, *request, end=None))
    assert _run(core) == {id: _alone(*request, end=None) for id, request in requests.items()}
    assert core.stats().preemptions > 0


def test_guesses_save_steps_and_are_counted():
    plain, guessing = FakeModel(100, 4), FakeModel(100, 4)
    core = _core(guessing, method="draft")
    for each in (_core(plain), core):
        each.add(_request("a", [0, 1, 2], 60, end=None))
        assert _run(each) == {"a": _alone([0, 1, 2], 60, end=None)}
    stats = core.stats()
    assert len(guessing.steps) == len(plain.steps) - stats.speculative_accepted_tokens < 40
    assert 0 < stats.speculative_accepted_tokens < stats.speculative_draft_tokens


def test_decodes_go_on_while_a_long_prompt_is_computed_in_pieces():
    model = FakeModel(100, 4)
    core = _core(model, budget=8)
    core.add(_request("first", [0], 40))
    core.step()
    core.add(_request("long", [1] * 60, 1))
    for _ in range(8):
        core.step()
    mixed = [step for step in model.steps if len(step) == 2]
    assert len(mixed) >= 8
    assert all(len(step[0].tokens) == 1 and len(step[1].tokens) <= 7 for step in mixed)


@pytest.mark.parametrize(("age_weight", "first"), [(float("inf"), "long"), (1e-6, "short")])
def test_a_short_prompt_goes_before_a_long_one_unless_that_has_waited(age_weight, first):
    options = EngineOptions(model=Path(), max_running_requests=4, max_batch_tokens=8, age_weight=age_weight)
    core = EngineCore(FakeModel(100, 4), options)
    core.add(_request("long", [1] * 60, 2))
    core.add(_request("short", [2, 0], 2))
    ends = [output.request.id for _ in range(20) for output in (core.step() if core.busy else [])]
    assert ends[0] == first


def test_a_long_prompt_that_has_waited_goes_before_short_ones():
    # A nanosecond of waiting makes up for a token.
    options = EngineOptions(model=Path(), max_running_requests=1, max_batch_tokens=8, age_weight=1e9)
    core = EngineCore(FakeModel(100, 4), options)
    core.add(_request("runs", [0], 30, end=None))
    core.step()
    core.add(_request("long", [1] * 40, 1))
    core.add(_request("short", [2, 0], 1))
    ends = []
    while core.busy:
        ends += [output.request.id for output in core.step() if output.finish]
    assert ends == ["runs", "long", "short"]


def test_a_prompt_seen_before_is_computed_from_its_last_block_on():
    model = FakeModel(100, 4)
    core = _core(model)
    prompt = [1, 2, 0, 1, 2, 2, 1, 0]  # two full blocks
    core.add(_request("first", prompt, 1))
    _run(core)
    model.steps.clear()
    core.add(again := _request("again", prompt, 1))
    assert _run(core) == {"again": _alone(prompt, 1)}
    assert again.cached == 4  # the second block holds the last token, which must be computed
    assert model.steps[0][0].start == 4
    assert core.stats().prefix_cache_hit_tokens == 4


def test_generated_tokens_are_found_by_the_next_turn_of_a_conversation():
    core = _core(FakeModel(100, 2))
    prompt = [1, 1, 2, 0]
    core.add(_request("turn 1", prompt, 6))
    answer = _run(core)["turn 1"]
    core.add(second := _request("turn 2", [*prompt, *answer, 2, 2], 2))
    _run(core)
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
    core = _core(FakeModel(blocks, 2, context_length))
    with pytest.raises(RequestTooLongError) as refused:
        core.add(_request("long", [0] * 8, 3))
    assert str(refused.value) == message
    core.add(_request("fits", [0] * 8, 2))
    assert _run(core) == {"fits": _alone([0] * 8, 2)}


def test_an_end_token_and_max_tokens_say_why_a_sequence_ended():
    core = _core(FakeModel(100, 4))
    core.add(_request("a", [0], 1))
    finishes = [output.finish for output in core.step()]
    assert finishes == [FinishReason.STOP if _alone([0], 1) == [END] else FinishReason.LENGTH]
    request = Request("b", [0], SamplingParams(max_tokens=9, temperature=0, stop_token_ids=frozenset(range(VOCAB))))
    core.add(request)
    assert [output.finish for output in core.step()] == [FinishReason.STOP]
