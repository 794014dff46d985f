"""Ranks that share the tokens: the logits of one process, wherever the keys lie."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.nodes.native.model.fused import library
from slurminfer.nodes.native.model.parallel.partial_attention import attend_in_slices
from slurminfer.nodes.native.model.parallel.sequence import HeldKeys, merge_partial

from ....support.quantized_models import to_awq
from ..model.conftest import make_model
from .test_parallel import OPTIONS, Steps, alone, compare, together

pytestmark = pytest.mark.process

BLOCK = OPTIONS["block_size"]
LONGEST = 200


def random_steps(seed: int, steps: int = 10) -> Steps:
    """Sequences in blocks that lie anywhere, some shared: prompts in pieces, tokens one by one, several checked."""
    choose = random.Random(seed)
    free = list(range(240))
    choose.shuffle(free)
    shared, words = [free.pop() for _ in range(4)], [choose.choices(range(199), k=LONGEST) for _ in range(6)]
    for text in words[1:]:
        text[: len(shared) * BLOCK] = words[0][: len(shared) * BLOCK]
    blocks = [[*shared, *(free.pop() for _ in range(LONGEST // BLOCK - len(shared)))] for _ in words]
    done = [0] * len(words)
    found: Steps = []
    for index in range(steps):
        step = []
        for line in [0] if index == 0 else choose.sample(range(len(words)), choose.randint(1, len(words))):
            if line and not done[line]:  # its beginning is in the prefix cache
                done[line] = len(shared) * BLOCK
            start = done[line]
            least = len(shared) * BLOCK if index == 0 else 1
            count = min(max(choose.choice([1, 1, 3, 17, 40, 90]), least), LONGEST - start)
            if count:
                step.append((words[line][start : start + count], start, blocks[line], choose.randint(0, min(count, 4))))
                done[line] += count
        found.append(step or [(words[0][:1], 0, [free[0]], 1)])
    return found


@pytest.mark.parametrize(
    ("variant", "sequence", "tensor", "pipeline"),
    [
        ("llama", 2, 1, 1),
        ("qwen2 window in part", 3, 1, 1),
        ("mistral window", 4, 1, 1),  # one block and a token more: most ranks hold nothing that is seen
        ("qwen3", 2, 2, 1),
        ("llama tied, biases", 2, 1, 2),
        ("llama", 2, 2, 2),
    ],
)
def test_logits_are_those_of_one_process(tmp_path, variant, sequence, tensor, pipeline):
    make_model(tmp_path, variant)
    steps = random_steps(sequence)
    found = together(tmp_path, tensor, pipeline, tmp_path, sequence, steps, dtype="float32")["logits"]
    compare(found, alone(tmp_path, steps, dtype="float32"), 1e-5)


@pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")
@pytest.mark.parametrize(
    ("kind", "cache", "sequence", "tensor", "pipeline"),
    [
        ("dense", "auto", 2, 1, 1),
        ("dense window", "auto", 3, 1, 1),
        ("awq", "auto", 2, 2, 1),
        ("awq", "int8", 3, 1, 1),
        ("awq", "int4", 2, 1, 2),
    ],
)
def test_the_compiled_library_shares_tokens_too(tmp_path, kind, cache, sequence, tensor, pipeline):
    make_model(tmp_path, "qwen2 window in part" if "window" in kind else "llama")
    if kind == "awq":
        to_awq(tmp_path)
    options: dict[str, Any] = {"dtype": "bfloat16", "kernels": "compiled", "kv_cache_dtype": cache}
    steps = random_steps(sequence)
    found = together(tmp_path, tensor, pipeline, tmp_path, sequence, steps, **options)
    assert found["compiled"]
    # An input may round to the next code, and a key: of 4 bits, that is a fifteenth of its range.
    compare(found["logits"], alone(tmp_path, steps, **options), 0.1 if cache == "int4" else 0.05)


@pytest.mark.parametrize(("dtype", "cache"), [("bfloat16", "auto"), ("float32", "int8"), ("float32", "int4")])
def test_every_kind_of_cache(tmp_path, dtype, cache):
    make_model(tmp_path, "llama")
    options: dict[str, Any] = {
        "dtype": dtype,
        "kernels": "torch" if dtype == "bfloat16" else "auto",
        "kv_cache_dtype": cache,
    }
    steps = random_steps(7)
    found = together(tmp_path, 1, 1, tmp_path, 2, steps, **options)["logits"]
    compare(found, alone(tmp_path, steps, **options), 0.02)  # a code may differ


@given(data=st.data())
def test_every_key_is_held_once_and_counted_in_order(data):
    size, block_size = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    blocks = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True))
    positions = np.arange(len(blocks) * block_size)
    ranks = [HeldKeys(blocks, rank, size, block_size) for rank in range(size)]
    slots = np.stack([held.slots(positions) for held in ranks])
    assert ((slots >= 0).sum(0) == 1).all()
    for rank, held in enumerate(ranks):
        mine = slots[rank] >= 0
        assert held.before(positions).tolist() == np.concatenate(([0], mine.cumsum()[:-1])).tolist()
        assert held.before(positions[-1:] + 1) == [mine.sum()] == [len(held.blocks) * block_size]
        places = [held.blocks[place // block_size] * block_size + place % block_size for place in range(mine.sum())]
        assert slots[rank][mine].tolist() == places


def test_parts_are_merged_to_the_attention_to_all_keys():
    torch.manual_seed(0)
    scores, values = 20 * torch.randn(5, 3, 40).double(), torch.randn(40, 8).double()
    whole = scores.softmax(-1) @ values
    parts = []
    for keys in (slice(0, 1), slice(1, 25), slice(25, 25), slice(25, 40)):
        sums = scores[..., keys].logsumexp(-1, keepdim=True)
        parts.append(torch.cat((scores[..., keys].softmax(-1) @ values[keys], sums), -1))
    torch.testing.assert_close(merge_partial(torch.stack(parts)), whole)


def test_what_computes_on_gpus_finds_what_pytorch_s_kernel_does_on_cpus():
    torch.manual_seed(0)
    q, (keys, values) = torch.randn(2, 3, 7, 16), torch.randn(2, 2, 3, 20, 16)
    mask = torch.zeros(2, 1, 7, 20).masked_fill_(torch.rand(2, 1, 7, 20) < 0.5, -torch.inf)
    out, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, keys, values, attn_mask=mask)
    for most in (1, 300, 10**6):
        found = attend_in_slices(q, keys, values, mask, most)
        torch.testing.assert_close(found, (out, sums))
    mask[:] = -torch.inf
    assert (attend_in_slices(q, keys, values, mask, 10**6)[1] == -torch.inf).all()
    assert (attend_in_slices(q, keys, values, mask, 10**6)[0] == 0).all()
