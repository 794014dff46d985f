"""Embeddings in the engine: mixed with answers, in chunks, preempted, aborted, in a pipeline; with a fake model."""

import struct
from collections.abc import Sequence

import pytest

from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.quant.checkpoint.embedding import Pooling

from ....support.fake_model import VOCAB, FakeModel, alone, make_core, make_request

POOLINGS = list(Pooling)


def embedding(id: str, prompt: Sequence[int], pooling: Pooling) -> Request:
    return Request(id, list(prompt), SamplingParams(max_tokens=0), pooling=pooling)


def wanted(prompt: Sequence[int], pooling: Pooling) -> list[float]:
    """Of the fake, whose hidden states are a token's number, its position and a one."""
    last = len(prompt) - 1
    if pooling is Pooling.LAST:
        return [prompt[-1], last, 1]
    return [prompt[0], 0, 1] if pooling is Pooling.CLS else [sum(prompt) / len(prompt), last / 2, 1]


def run(core: EngineCore) -> tuple[dict[str, list[int]], dict[str, list[float]]]:
    """Step until nothing is left: tokens and embeddings of the requests."""
    tokens: dict[str, list[int]] = {}
    found: dict[str, list[float]] = {}
    for _ in range(5000):
        if not core.busy:
            return tokens, found
        for output in core.step():
            tokens.setdefault(output.request.id, []).append(output.token)
        for each in core.take_embeddings():
            assert each.request.id not in found, "twice"
            found[each.request.id] = list(struct.unpack("<3f", each.vector))
    raise AssertionError("it hangs")


def prompts(count: int, length: int) -> list[list[int]]:
    return [[(i * 5 + j * j) % VOCAB for j in range(length + i)] for i in range(count)]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("budget", [5, 16, 200])
def test_embeddings_and_answers_share_steps(pooling, depth, budget):
    model = FakeModel(64, 4, depth=depth)
    core = make_core(model, running=5, budget=budget)
    texts = prompts(8, 9)
    for i, prompt in enumerate(texts):
        core.add(embedding(f"e{i}", prompt, pooling))
        core.add(make_request(f"g{i}", prompt, 6))
    tokens, vectors = run(core)
    for i, prompt in enumerate(texts):
        assert vectors[f"e{i}"] == pytest.approx(wanted(prompt, pooling))
        assert tokens[f"g{i}"] == alone(prompt, 6)
    assert any({chunk.num_logits for chunk in step} == {0, 1} for step in model.steps), "never in one step"
    assert core.stats().kv_blocks_used == 0
    assert core.stats().generation_tokens == sum(map(len, tokens.values()))
    assert core.stats().prompt_tokens == 2 * sum(map(len, texts))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_preempted_requests_begin_anew(pooling):
    """Decodes that grow take the blocks of an embedding that is half computed."""
    model = FakeModel(10, 2)
    core = make_core(model, running=4, budget=4)
    for i, prompt in enumerate(prompts(3, 2)):
        core.add(make_request(f"g{i}", prompt, 6, end=None))
    text = [*range(1, 11)]
    core.add(embedding("e", text, pooling))
    tokens, vectors = run(core)
    assert core.stats().preemptions > 0
    assert vectors == {"e": pytest.approx(wanted(text, pooling))}
    assert all(len(each) == 6 for each in tokens.values())


@pytest.mark.parametrize(("pooling", "shared"), [(Pooling.LAST, 8), (Pooling.CLS, 0), (Pooling.MEAN, 0)])
def test_only_the_last_tokens_state_may_come_after_a_cached_prefix(pooling, shared):
    core = make_core(FakeModel(32, 4), budget=64)
    text = [*range(1, 11)]
    core.add(make_request("g", text, 1))
    run(core)
    core.add(embedding("e", text, pooling))
    assert run(core)[1] == {"e": pytest.approx(wanted(text, pooling))}
    assert core.stats().prefix_cache_hit_tokens == shared


def test_what_an_embedding_has_computed_is_shared_with_answers():
    core = make_core(FakeModel(32, 4), budget=64)
    text = [*range(1, 11)]
    core.add(embedding("e", text, Pooling.MEAN))
    run(core)
    core.add(make_request("g", text, 4))
    assert run(core)[0] == {"g": alone(text, 4)}
    assert core.stats().prefix_cache_hit_tokens == 8


@pytest.mark.parametrize("depth", [1, 2])
def test_an_aborted_request_gives_nothing_and_frees_its_blocks(depth):
    core = make_core(FakeModel(32, 4, depth=depth), budget=4)
    text = [*range(1, 11)]
    core.add(embedding("gone", text, Pooling.MEAN))
    core.add(embedding("stays", text, Pooling.MEAN))
    core.step()
    core.abort("gone")
    assert run(core)[1].keys() == {"stays"}
    assert core.stats().kv_blocks_used == 0


def test_a_paused_request_is_computed_when_it_is_resumed():
    core = make_core(FakeModel(32, 4), budget=4)
    text = [*range(1, 11)]
    core.add(embedding("e", text, Pooling.MEAN))
    core.step()
    core.pause(["e"])
    assert run(core)[1] == {}
    core.resume(["e"])
    assert run(core)[1] == {"e": pytest.approx(wanted(text, Pooling.MEAN))}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_drafts_are_made_for_answers_only(pooling):
    core = make_core(FakeModel(64, 4), method="draft", budget=32)
    texts = prompts(4, 6)
    for i, prompt in enumerate(texts):
        core.add(embedding(f"e{i}", prompt, pooling))
        core.add(make_request(f"g{i}", prompt, 12, end=None))
    tokens, vectors = run(core)
    for i, prompt in enumerate(texts):
        assert vectors[f"e{i}"] == pytest.approx(wanted(prompt, pooling))
        assert tokens[f"g{i}"] == alone(prompt, 12, None)
    assert core.stats().speculative_accepted_tokens > 0
