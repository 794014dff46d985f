"""The Triton kernels against PyTorch's operations: on a GPU, or interpreted on a CPU with TRITON_INTERPRET=1."""

import math

import pytest
import torch
import torch.nn.functional as F

from slurminfer.nodes.native.cuda import uses_triton
from slurminfer.nodes.native.kv_cache import KVCache
from slurminfer.nodes.native.paged import BlockGroup
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


def make_cache(head_dim: int, num_blocks: int = 40, block_size: int = 4) -> KVCache:
    cache = KVCache(Shape(head_dim), num_blocks, block_size, Plain(head_dim, torch.float32), device)  # type: ignore[arg-type]
    cache.tokens(0).normal_(generator=torch.Generator(device).manual_seed(1))
    return cache


@pytest.mark.parametrize(("head_dim", "heads"), [(32, 2), (24, 6)])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("lengths", [[70, 3, 0, 65], [64], [9] * 300])
def test_attention(head_dim, heads, window, lengths):
    from slurminfer.nodes.native.cuda.attention import attend_blocks

    if len(lengths) > 4:  # so many sequences that none is split
        lengths = lengths[: 300 if DEVICE == "cuda" else 6]
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


@pytest.mark.parametrize(("head_dim", "heads"), [(32, 2), (24, 19)])
def test_rotating_and_storing(head_dim, heads):
    from slurminfer.nodes.native.cuda.operations import rotate_and_store

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
    from slurminfer.nodes.native.cuda.operations import silu_multiply

    gate_up = torch.randn(3, 2 * inner, device=device, generator=torch.Generator(device).manual_seed(3))
    gate, up = gate_up.chunk(2, -1)
    torch.testing.assert_close(silu_multiply(gate_up), F.silu(gate) * up)
