"""The Triton kernels against PyTorch's operations: on a GPU, or interpreted on a CPU with TRITON_INTERPRET=1."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from slurminfer.nodes.native.model.cuda import uses_triton
from slurminfer.nodes.native.model.kv_cache import KVCache
from slurminfer.nodes.native.model.paged import BlockGroup
from slurminfer.nodes.native.model.parallel.ranges import make_ranges
from slurminfer.quant.kv import Plain
from slurminfer.quant.rope import rotate

from .conftest import DEVICE

device = torch.device(DEVICE)
pytestmark = [
    pytest.mark.skipif(not uses_triton(device), reason="SLURMINFER_TEST_DEVICE=cuda, or TRITON_INTERPRET=1 and Triton"),
    pytest.mark.filterwarnings("ignore"),  # NumPy's, of the interpreter
]


class Shape:
    """What KVCache wants to know of a model."""

    num_layers, num_kv_heads = 1, 2

    def __init__(self, head_dim: int) -> None:
        self.head_dim = head_dim


@dataclass(frozen=True)
class Held:
    """Of a sequence's keys, see `Seen` of ranges.py."""

    blocks: list[int]
    first: np.ndarray
    last: np.ndarray


def make_cache(head_dim: int, num_blocks: int = 40, block_size: int = 4) -> KVCache:
    cache = KVCache(Shape(head_dim), num_blocks, block_size, Plain(head_dim, torch.float32), device)  # type: ignore[arg-type]
    cache.tokens(0).normal_(generator=torch.Generator(device).manual_seed(1))
    return cache


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize(("head_dim", "heads"), [(32, 2), (24, 6)])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("lengths", [[70, 3, 0, 65], [64], [9] * 300])
def test_attention(head_dim, heads, window, lengths):
    from slurminfer.nodes.native.model.cuda.attention import attend_blocks

    if len(lengths) > 4:  # so many sequences that none is split
        lengths = lengths[: 300 if DEVICE == "cuda" else 9]
    cache = make_cache(head_dim)
    random = torch.Generator().manual_seed(0)
    tables = [torch.randperm(40, generator=random)[: math.ceil(length / 4) or 1].tolist() for length in lengths]
    width = max(map(len, tables))
    padded = torch.tensor([table + [10**8] * (width - len(table)) for table in tables], dtype=torch.int32)
    q = torch.randn(len(lengths), heads, head_dim, generator=random).to(device)
    group = BlockGroup(
        slice(0, len(lengths)), padded.to(device), torch.tensor(lengths, dtype=torch.int32, device=device), window
    )
    out = attend_blocks(q, 0, cache, group).view(len(lengths), heads, head_dim)
    for row, (length, table) in enumerate(zip(lengths, tables, strict=True)):
        if length == 0:
            assert out[row].isfinite().all()  # read by nobody, but a NaN would spread through sums over rows
            continue
        keys, values = cache.gather(0, cache.rows(torch.tensor([table], device=device)), 1)
        first = 0 if window is None else max(length - window, 0)
        keys, values = (x[:, :, first:length].repeat_interleave(heads // 2, 1) for x in (keys, values))
        expected = F.scaled_dot_product_attention(q[row : row + 1, :, None], keys, values)[0, :, 0]
        torch.testing.assert_close(out[row], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "head_dim", "heads"), [(1, 32, 2), (5, 24, 6)])
@pytest.mark.parametrize("is_split", [False, True])
def test_attention_to_ranges_of_keys(height, head_dim, heads, is_split, monkeypatch):
    from slurminfer.nodes.native.model.cuda import attention
    from slurminfer.nodes.native.model.cuda.ranges import attend_ranges

    monkeypatch.setattr(attention, "_PROGRAMS", 128 if is_split else 1)
    cache = make_cache(head_dim)
    random = torch.Generator().manual_seed(0)
    seen = [
        # Rows that see more and more, some that see nothing, and windows.
        Held(torch.randperm(40, generator=random)[:20].tolist(), np.zeros(11, int), np.arange(70, 81)),
        Held([], np.zeros(2, int), np.zeros(2, int)),
        Held([3, 1], np.array([0, 0, 5, 7]), np.array([0, 5, 6, 7])),
        Held([7], np.array([1]), np.array([3])),
    ]
    before = 2  # rows of others
    ranges = make_ranges(seen, before, height, device)
    count = ranges.rows.stop
    every = torch.randn(count, heads + 3, head_dim, generator=random).to(device)
    q, parts = every[:, :heads], torch.full((count, heads, head_dim + 1), 7.0, device=device)
    attend_ranges(q[ranges.rows], 0, cache, ranges, parts[ranges.rows])
    assert (parts[:before] == 7).all()
    row = before
    for each in seen:
        keys, values = (
            x[0].repeat_interleave(heads // 2, 0)
            for x in cache.gather(0, cache.rows(torch.tensor([each.blocks or [0]], device=device)), 1)
        )
        for first, last in zip(each.first, each.last, strict=True):
            scores = (keys[:, first:last] @ q[row, :, :, None])[..., 0] * head_dim**-0.5
            means = (scores.softmax(-1)[:, None] @ values[:, first:last])[:, 0]
            torch.testing.assert_close(parts[row, :, :-1], means, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(parts[row, :, -1], scores.logsumexp(-1), rtol=1e-5, atol=1e-5)
            row += 1
    assert row == count


@pytest.mark.parametrize(("head_dim", "heads"), [(32, 2), (24, 19)])
def test_rotating_and_storing(head_dim, heads):
    from slurminfer.nodes.native.model.cuda.operations import rotate_and_store

    count = 3
    cache, untouched = make_cache(head_dim), make_cache(head_dim)
    random = torch.Generator(device).manual_seed(2)
    qkv = torch.randn(count, heads + 4, head_dim, device=device, generator=random)
    cos, sin = (torch.randn(count, 1, head_dim, device=device, generator=random) for _ in range(2))
    blocks, offsets = torch.tensor([7, -1, 2], device=device), torch.tensor([3, 0, 1], device=device)
    q, kv = rotate_and_store(qkv, cos, sin, heads, cache.tokens(0), cache.slots(blocks, offsets))
    turned = rotate(qkv[:, : heads + 2], cos, sin)
    torch.testing.assert_close(q, turned[:, :heads])
    torch.testing.assert_close(kv, torch.stack((turned[:, heads:], qkv[:, heads + 2 :]), 1))
    kept = torch.tensor([0, 2], device=device)  # block -1: nobody's row
    untouched.write(0, untouched.slots(blocks[kept], offsets[kept]), kv[kept])
    assert torch.equal(cache.tokens(0), untouched.tokens(0))


@pytest.mark.parametrize("inner", [96, 1500])
def test_silu(inner):
    from slurminfer.nodes.native.model.cuda.operations import silu_multiply

    gate_up = torch.randn(3, 2 * inner, device=device, generator=torch.Generator(device).manual_seed(3))
    gate, up = gate_up.chunk(2, -1)
    torch.testing.assert_close(silu_multiply(gate_up), F.silu(gate) * up)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_every_program_for_ranges_of_keys_fits_a_hopper_gpu():
    program = Path(__file__).with_name("compile_kernels.py")
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    found = json.loads(subprocess.run([sys.executable, program], env=env, check=True, capture_output=True).stdout)
    assert len(found) == 4
    assert all(shared <= 227 << 10 and stack <= 256 for shared, stack in found.values()), found
