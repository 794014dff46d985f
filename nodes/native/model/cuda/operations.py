"""Between matrix products, in Triton: what takes several of PyTorch's kernels is one."""

import torch
import triton
import triton.language as tl

_HEADS, _NEURONS = 16, 1024  # of a program


def rotate_and_store(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int, tokens: torch.Tensor, slots: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate queries and keys, and write keys and values into the cache.

    Args:
        qkv: [n, heads + 2 * kv_heads, head_dim].
        cos, sin: [n, 1, head_dim], of `Rope.at`.
        tokens: a layer of `KVCache.tokens`.
        slots: of `KVCache.slots`; those below 0 are written nowhere.

    Returns: queries [n, heads, head_dim]; keys and values [n, 2, kv_heads, head_dim].
    """
    count, all_heads, head_dim = qkv.shape
    kv_heads = (all_heads - heads) // 2
    queries = qkv.new_empty(count, heads, head_dim)
    kv = qkv.new_empty(count, 2, kv_heads, head_dim)
    if count:
        _rotate[(count, triton.cdiv(all_heads, _HEADS))](
            qkv.contiguous(), cos, sin, queries, kv, tokens, slots,
            Q_HEADS=heads, KV_HEADS=kv_heads, HEAD_DIM=head_dim, WIDTH=triton.next_power_of_2(head_dim), HEADS=_HEADS,
        )  # fmt: skip
    return queries, kv


def silu_multiply(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up [n, inner] of gate and up side by side [n, 2 * inner]."""
    count, inner = gate_up.shape[0], gate_up.shape[1] // 2
    y = gate_up.new_empty(count, inner)
    if count:
        _silu[(count, triton.cdiv(inner, _NEURONS))](gate_up.contiguous(), y, inner, NEURONS=_NEURONS)
    return y


def _rotate_heads(
    qkv: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    queries: tl.tensor,
    kv: tl.tensor,
    tokens: tl.tensor,
    slots: tl.tensor,
    Q_HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    HEADS: tl.constexpr,
) -> None:
    """Some heads of one token."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    channel = tl.arange(0, WIDTH)
    is_channel = channel < HEAD_DIM
    mask = (head < Q_HEADS + 2 * KV_HEADS)[:, None] & is_channel[None, :]
    line = qkv + (row * (Q_HEADS + 2 * KV_HEADS) + head)[:, None] * HEAD_DIM
    x = tl.load(line + channel[None, :], mask=mask, other=0.0)
    opposite = tl.load(line + ((channel + HEAD_DIM // 2) % HEAD_DIM)[None, :], mask=mask, other=0.0)
    c = tl.load(cos + row * HEAD_DIM + channel, mask=is_channel, other=0.0).to(tl.float32)
    s = tl.load(sin + row * HEAD_DIM + channel, mask=is_channel, other=0.0).to(tl.float32)
    turned = x.to(tl.float32) * c[None, :] + opposite.to(tl.float32) * s[None, :]
    y = tl.where((head < Q_HEADS + KV_HEADS)[:, None], turned, x.to(tl.float32)).to(x.dtype)
    is_query = mask & (head < Q_HEADS)[:, None]
    tl.store(queries + (row * Q_HEADS + head)[:, None] * HEAD_DIM + channel[None, :], y, mask=is_query)
    stored = row * (2 * KV_HEADS) + head - Q_HEADS
    is_stored = mask & (head >= Q_HEADS)[:, None]
    tl.store(kv + stored[:, None] * HEAD_DIM + channel[None, :], y, mask=is_stored)
    slot = tl.load(slots + stored, mask=(head >= Q_HEADS) & (head < Q_HEADS + 2 * KV_HEADS), other=-1)
    tl.store(tokens + slot[:, None] * HEAD_DIM + channel[None, :], y, mask=is_stored & (slot >= 0)[:, None])


_rotate = triton.jit(_rotate_heads)


def _silu_row(gate_up: tl.tensor, y: tl.tensor, inner: int, NEURONS: tl.constexpr) -> None:
    """Some neurons of one token."""
    row = tl.program_id(0).to(tl.int64)
    neuron = tl.program_id(1) * NEURONS + tl.arange(0, NEURONS)
    mask = neuron < inner
    gate = tl.load(gate_up + row * 2 * inner + neuron, mask=mask, other=0.0)
    up = tl.load(gate_up + row * 2 * inner + inner + neuron, mask=mask, other=0.0)
    wide = gate.to(tl.float32)
    tl.store(y + row * inner + neuron, (wide * tl.sigmoid(wide) * up.to(tl.float32)).to(gate.dtype), mask=mask)


_silu = triton.jit(_silu_row)
