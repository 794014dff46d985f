"""Pooled hidden states are those of transformers: for each pooling, in chunks, mixed with decodes, on both paths."""

import random
from typing import Any

import pytest
import torch

from slurminfer.core.errors import EngineError
from slurminfer.nodes.native.model.fused import library
from slurminfer.nodes.native.model.loading import load_draft
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.quant.checkpoint.embedding import Pooling

pytestmark = pytest.mark.slow
needs_library = pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")
TOLERANCE = 1e-4
LENGTHS = (5, 41, 1, 90, 17)


def _prompts():
    return [random.Random(n).choices(range(199), k=n) for n in LENGTHS]


@torch.inference_mode()
def states_of(reference, prompt):
    """What transformers computes behind the final norm, [tokens, hidden_size]."""
    return reference.base_model(torch.tensor([prompt])).last_hidden_state[0].float()


def expected_of(reference, prompt, pooling):
    states = states_of(reference, prompt)
    return {Pooling.LAST: states[-1], Pooling.CLS: states[0], Pooling.MEAN: states.mean(0)}[pooling]


def chunk(model, prompt, start, stop, block, pooling):
    """Tokens of a sequence whose blocks begin with number `block`; a chunk that pools nothing has no pooling."""
    width = -(-len(prompt) // model.block_size)
    wanted = {Pooling.LAST: stop == len(prompt), Pooling.CLS: start == 0, Pooling.MEAN: True, None: False}[pooling]
    blocks = range(block, block + width)
    return Chunk(prompt[start:stop], start, blocks, 0, True, pooling if wanted else None)


def embed(model, prompts, pooling, sizes):
    """Each prompt's embedding, in steps of so many tokens of each."""
    sums: list[Any] = [None] * len(prompts)
    done = [0] * len(prompts)
    for size in (*sizes, max(map(len, prompts))):
        going = [i for i, prompt in enumerate(prompts) if done[i] < len(prompt)]
        if not going:
            break
        chunks = [
            chunk(model, prompts[i], done[i], min(done[i] + size, len(prompts[i])), 20 * i, pooling) for i in going
        ]
        model.begin(chunks)
        pooled = model.finish().pooled
        rows = iter([] if pooled is None else pooled.cpu())
        for i, part in zip(going, chunks, strict=True):
            done[i] += len(part.tokens)
            if part.pooling is not None:
                row = next(rows)
                sums[i] = row.clone() if sums[i] is None else sums[i] + row
    if pooling is Pooling.MEAN:
        return [total / len(prompt) for total, prompt in zip(sums, prompts, strict=True)]
    return sums


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("sizes", [(), (4, 30)], ids=["whole", "chunks"])
def test_pooled_states_are_those_of_transformers(pair, load, pooling, sizes):
    path, reference = pair
    found = embed(load(path, kv_cache_gib=0.1), _prompts(), pooling, sizes)
    for prompt, vector in zip(_prompts(), found, strict=True):
        torch.testing.assert_close(vector, expected_of(reference, prompt, pooling), atol=TOLERANCE, rtol=0)


def test_one_step_gives_logits_and_pooled_states(make, load, tmp_path):
    reference = make(tmp_path, "qwen3")
    model = load(tmp_path, kv_cache_gib=0.1)
    first, second, third, fourth = _prompts()[:4]
    model.begin([
        chunk(model, first, 0, 5, 0, Pooling.MEAN),
        Chunk(second, 0, range(20, 26), num_logits=2),
        chunk(model, third, 0, 1, 40, Pooling.LAST),
        chunk(model, fourth, 0, 90, 60, Pooling.CLS),
    ])  # fmt: skip
    output = model.finish()
    with torch.inference_mode():
        logits = reference(torch.tensor([second])).logits[0, -2:]
    torch.testing.assert_close(output.rows.cpu(), logits, atol=1e-3, rtol=0)
    wanted = [
        expected_of(reference, prompt, pooling)
        for prompt, pooling in ((first, Pooling.MEAN), (third, Pooling.LAST), (fourth, Pooling.CLS))
    ]
    pooled = output.pooled.cpu() / torch.tensor([[5], [1], [1]])  # a mean comes as a sum
    torch.testing.assert_close(pooled, torch.stack(wanted), atol=TOLERANCE, rtol=0)


@needs_library
@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("variant", ["qwen3", "llama tied, biases"])
def test_the_compiled_path_differs_by_rounding_only(make, load, tmp_path, variant, pooling):
    reference = make(tmp_path, variant, {"intermediate_size": 128})
    model = load(tmp_path, dtype="bfloat16", device="cpu", kernels="compiled", kv_cache_gib=0.1)
    assert model.compiled
    for sizes in ((), (4, 30)):
        found = embed(model, _prompts(), pooling, sizes)
        for prompt, vector in zip(_prompts(), found, strict=True):
            similarity = torch.cosine_similarity(vector, expected_of(reference, prompt, pooling), dim=0)
            assert similarity > 0.999


@needs_library
def test_the_compiled_path_gives_logits_beside_pooled_states(make, load, tmp_path):
    reference = make(tmp_path, "qwen3", {"intermediate_size": 128})
    model = load(tmp_path, dtype="bfloat16", device="cpu", kernels="compiled", kv_cache_gib=0.1)
    prompt = _prompts()[1]
    alone = model.forward([Chunk(prompt, 0, range(20, 26), num_logits=2)]).clone()
    model.begin([chunk(model, _prompts()[0], 0, 5, 0, Pooling.MEAN), Chunk(prompt, 0, range(20, 26), num_logits=2)])
    output = model.finish()
    assert torch.equal(output.rows, alone)
    expected = expected_of(reference, _prompts()[0], Pooling.MEAN)
    assert torch.cosine_similarity(output.pooled[0], expected, dim=0) > 0.999


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bare_decoder_gives_the_states_of_the_whole_model(make, load, tmp_path, dtype):
    """As transformers writes it: no lm_head, and no tensor's name begins with `model.`."""
    reference = make(tmp_path / "whole", "qwen3", {"intermediate_size": 128})
    reference.base_model.save_pretrained(tmp_path / "bare")
    model = load(tmp_path / "bare", dtype=dtype, kv_cache_gib=0.1)
    found = embed(model, _prompts(), Pooling.LAST, (20,))
    for prompt, vector in zip(_prompts(), found, strict=True):
        expected = expected_of(reference, prompt, Pooling.LAST)
        if dtype == "float32":
            torch.testing.assert_close(vector, expected, atol=TOLERANCE, rtol=0)
        else:
            assert torch.cosine_similarity(vector, expected, dim=0) > 0.999


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bare_decoder_says_that_it_gives_no_logits(make, load, tmp_path, dtype):
    decoder: Any = make(tmp_path / "whole", "qwen3", {"intermediate_size": 128}).base_model
    decoder.save_pretrained(tmp_path / "bare")
    model = load(tmp_path / "bare", dtype=dtype, kv_cache_gib=0.1)
    with pytest.raises(EngineError, match="has no lm_head"):
        model.forward([Chunk([1, 2], 0, [0], num_logits=1)])


def test_a_bare_decoder_is_no_draft_model(make, load, tmp_path):
    decoder: Any = make(tmp_path / "whole", "qwen3").base_model
    decoder.save_pretrained(tmp_path / "bare")
    model = load(tmp_path / "whole", kv_cache_gib=0.1)
    options = EngineOptions(model=tmp_path / "whole", speculative="draft", draft_model=tmp_path / "bare")
    with pytest.raises(EngineError, match=r"draft_model = .*bare: expected a model with lm_head"):
        load_draft(options, model)
