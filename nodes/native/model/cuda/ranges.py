"""Attention of rows that each see a range of some blocks' keys, and the logarithms of its sums, in Triton.

As in FlashAttention (arXiv 2205.14135), a program takes a tile of rows of one sequence, with all heads that share a
key-value head, over the keys that any of them sees. Where tiles are few, the keys of each are split over programs too,
and the splits put together as in attention.py.
"""

import math
from typing import Protocol

import torch
import triton
import triton.language as tl

from ..kv_cache import KVCache
from .attention import FEWEST_QUERIES, attend_tokens, join_splits, splits_of

_TOKENS = 64  # attended to at once
_LARGE_TILE = 16 << 10  # bytes; such, and float32, take eight warps to stay in registers


class TiledRanges(Protocol):
    """What the kernel reads of the rows: each sees a range of the keys in its sequence's blocks."""

    @property
    def tiles(self) -> torch.Tensor:
        """int32 [tiles, 3]: the first of its rows, how many there are, and whose blocks (a row of `tables`)."""

    @property
    def height(self) -> int:
        """Rows of a tile at most."""

    @property
    def tables(self) -> torch.Tensor:
        """int32 [sequences, blocks]: ids of each sequence's blocks in the cache."""

    @property
    def bounds(self) -> torch.Tensor:
        """int32 [2, rows]: the first key that a row sees, and the one behind the last."""


def attend_ranges(q: torch.Tensor, layer: int, cache: KVCache, ranges: TiledRanges, parts: torch.Tensor) -> None:
    """Compute attention of q to the `ranges` of keys, for `merge_partial` of parallel/sequence.py.

    q is [n, heads, head_dim], its rows any stride apart; the cache is unquantized. `parts`, contiguous float32
    [n, heads, head_dim + 1], takes the means of values and behind them the natural logarithms of the sums of weights.
    """
    count, heads, head_dim = q.shape
    queries = heads // cache.kv_heads
    splits = splits_of(len(ranges.tiles) * cache.kv_heads)
    if splits == 1:
        means, sums, stride, unit = parts, parts.view(-1)[head_dim:], head_dim + 1, math.log(2)
    else:
        means = torch.empty(count, heads, splits, head_dim, dtype=torch.float32, device=q.device)
        sums, stride, unit = torch.empty(count, heads, splits, dtype=torch.float32, device=q.device), head_dim, 1.0
    _attend[(len(ranges.tiles), cache.kv_heads, splits)](
        q, cache.tokens(layer), ranges.tables, ranges.tiles, ranges.bounds, means, sums, q.stride(0),
        ranges.tables.stride(0), ranges.bounds.stride(0), splits, head_dim**-0.5 * math.log2(math.e), unit,
        QUERIES=queries, KV_HEADS=cache.kv_heads, HEAD_DIM=head_dim, BLOCK=cache.block_size, MEAN_STRIDE=stride,
        SUM_STRIDE=stride if splits == 1 else 1, **program(ranges.height * queries, head_dim, q.element_size()),
    )  # fmt: skip
    if splits > 1:
        join_splits(means, sums, parts)


def program(queries: int, head_dim: int, size: int) -> dict[str, int]:
    """What a program is compiled for and with, whose tile has so many queries of numbers of `size` bytes."""
    members, width = max(FEWEST_QUERIES, triton.next_power_of_2(queries)), triton.next_power_of_2(head_dim)
    is_large = size > 2 or members * width * size >= _LARGE_TILE
    constants = {"MEMBERS": members, "WIDTH": width, "TOKENS": _TOKENS}
    return {**constants, "num_warps": 8 if is_large else 4, "num_stages": 3}


def _attend_tile(
    q: tl.tensor,
    tokens: tl.tensor,
    tables: tl.tensor,
    tiles: tl.tensor,
    bounds: tl.tensor,
    means: tl.tensor,
    sums: tl.tensor,
    row_stride: int,
    table_stride: int,
    bound_stride: int,
    splits: int,
    scale: float,  # times log2(e): exponentials are of base 2
    unit: float,  # of the logarithms: what one of base 2 is multiplied by
    QUERIES: tl.constexpr,  # that share a key-value head
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,  # head_dim, padded
    BLOCK: tl.constexpr,  # tokens of a block of the cache
    TOKENS: tl.constexpr,
    MEMBERS: tl.constexpr,  # rows of a tile times QUERIES, padded
    MEAN_STRIDE: tl.constexpr,
    SUM_STRIDE: tl.constexpr,
) -> None:
    """One split of one tile, for the heads of one key-value head: mean of values, logarithm of the sum of weights."""
    tile, kv_head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    start, rows, sequence = tl.load(tiles + 3 * tile), tl.load(tiles + 3 * tile + 1), tl.load(tiles + 3 * tile + 2)
    member, channel = tl.arange(0, MEMBERS), tl.arange(0, WIDTH)
    is_query, is_channel = member // QUERIES < rows, channel < HEAD_DIM
    row = (start + member // QUERIES).to(tl.int64)
    first = tl.load(bounds + row, mask=is_query, other=0)
    last = tl.load(bounds + bound_stride + row, mask=is_query, other=0)
    sees = first < last
    seen_to = tl.max(tl.where(sees, last, 0), 0)
    seen_from = tl.min(tl.where(sees, first, seen_to), 0)  # not beyond: loads are pipelined, and look far ahead
    span = tl.cdiv(tl.cdiv(seen_to - seen_from, splits), TOKENS) * TOKENS
    begin = seen_from + split * span
    end = tl.minimum(begin + span, seen_to)
    head = kv_head * QUERIES + member % QUERIES
    is_part = is_query[:, None] & is_channel[None, :]
    place_of_q = (row * row_stride + head * HEAD_DIM)[:, None] + channel[None, :]
    queries = tl.load(q + place_of_q, mask=is_part, other=0.0)
    best = tl.full((MEMBERS,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((MEMBERS,), dtype=tl.float32)
    out = tl.zeros((MEMBERS, WIDTH), dtype=tl.float32)
    table, lasts = tables + sequence * table_stride, tl.minimum(last, end)
    for at in range(begin, end, TOKENS):
        best, total, out = attend_tokens(
            queries, tokens, table, at, end, first, lasts, kv_head, scale, best, total, out,
            KV_HEADS, HEAD_DIM, WIDTH, BLOCK, TOKENS,
        )  # fmt: skip
    out = out / tl.where(total > 0, total, 1.0)[:, None]
    part = (row * (KV_HEADS * QUERIES) + head) * splits + split
    tl.store(means + part[:, None] * MEAN_STRIDE + channel[None, :], out, mask=is_part)
    tl.store(sums + part * SUM_STRIDE, (best + tl.log2(total)) * unit, mask=is_query)


_attend = triton.jit(_attend_tile)
