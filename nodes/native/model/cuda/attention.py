"""Decode attention that reads keys and values where they lie in the KV cache, in Triton.

Flash decoding: the tokens of a sequence are split over programs, each of which keeps a running maximum and sum of its
softmax (arXiv 2205.14135), and a second kernel puts the splits together. Lengths and block tables are read on the GPU,
and the number of splits follows from the number of sequences alone: a recorded launch serves any lengths.
"""

import math

import torch
import triton
import triton.language as tl

from ..kv_cache import KVCache
from ..paged import BlockGroup

_TOKENS = 64  # attended to at once
FEWEST_QUERIES = 16  # the least that tl.dot multiplies: heads that share a key-value head are padded to it
_PROGRAMS, _MOST_SPLITS = 528, 64  # four programs for each multiprocessor of an H100


def attend_blocks(q: torch.Tensor, layer: int, cache: KVCache, group: BlockGroup) -> torch.Tensor:
    """Compute attention [sequences, heads * head_dim] of q [sequences, heads, head_dim] over an unquantized cache."""
    count, heads, head_dim = q.shape
    if not count:
        return q.new_empty(0, heads * head_dim)
    splits = splits_of(count * cache.kv_heads)
    parts = torch.empty(
        count, heads, splits, head_dim, dtype=q.dtype if splits == 1 else torch.float32, device=q.device
    )
    sums = torch.empty(count, heads, splits, dtype=torch.float32, device=q.device)
    queries = heads // cache.kv_heads
    _attend[(count, cache.kv_heads, splits)](
        q.contiguous(), cache.tokens(layer), group.tables, group.lengths, parts, sums,
        group.tables.stride(0), splits, head_dim**-0.5 * math.log2(math.e), group.window or 0,
        QUERIES=queries, KV_HEADS=cache.kv_heads, HEAD_DIM=head_dim, WIDTH=triton.next_power_of_2(head_dim),
        BLOCK=cache.block_size, TOKENS=_TOKENS, ROWS=max(FEWEST_QUERIES, triton.next_power_of_2(queries)),
        num_warps=4, num_stages=3,
    )  # fmt: skip
    if splits > 1:
        whole = torch.empty_like(q)
        join_splits(parts, sums, whole)
        parts = whole
    return parts.view(count, heads * head_dim)


def splits_of(programs: int) -> int:
    """Into how many splits the keys of each of so many programs are cut, for a GPU to have enough of them."""
    return max(1, min(_MOST_SPLITS, _PROGRAMS // programs))


def join_splits(parts: torch.Tensor, sums: torch.Tensor, whole: torch.Tensor) -> None:
    """Join the splits of each head: means [n, heads, splits, head_dim] and log2 of sums [n, heads, splits], float32.

    `whole` [n, heads, head_dim] gets the means; where it is [n, heads, head_dim + 1], with the natural logarithms of
    the sums behind them.
    """
    count, heads, splits, head_dim = parts.shape
    _join[(count * heads,)](
        parts, sums, whole, splits, HEAD_DIM=head_dim, WIDTH=triton.next_power_of_2(head_dim),
        SPLITS=triton.next_power_of_2(splits), STRIDE=whole.shape[-1],
    )  # fmt: skip


def _attend_tokens(
    queries: tl.tensor,
    tokens: tl.tensor,
    table: tl.tensor,
    at: int,
    end: int,
    firsts: tl.tensor,
    lasts: tl.tensor,
    kv_head: int,
    scale: float,  # times log2(e): exponentials are of base 2
    best: tl.tensor,
    total: tl.tensor,
    out: tl.tensor,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,  # head_dim, padded
    BLOCK: tl.constexpr,  # tokens of a block of the cache
    TOKENS: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """`best`, `total` and `out` of queries [n, WIDTH] after up to TOKENS more tokens of a block table, from `at` on.

    Each query sees the tokens from its own of `firsts` [n] up to that of `lasts` [n], none of them behind `end`. `best`
    [n] are the highest scores, `total` [n] and `out` [n, WIDTH] sums of weights and of weighted values.
    """
    place, channel = at + tl.arange(0, TOKENS), tl.arange(0, WIDTH)
    is_there, is_channel = place < end, channel < HEAD_DIM
    block = tl.load(table + place // BLOCK, mask=is_there, other=0).to(tl.int64)
    line = (block * (2 * KV_HEADS) + kv_head) * BLOCK + place % BLOCK
    keys = tl.load(
        tokens + line[None, :] * HEAD_DIM + channel[:, None], mask=is_there[None, :] & is_channel[:, None], other=0.0
    )
    values = tl.load(
        tokens + (line + KV_HEADS * BLOCK)[:, None] * HEAD_DIM + channel[None, :],
        mask=is_there[:, None] & is_channel[None, :],
        other=0.0,
    )
    is_seen = (place[None, :] >= firsts[:, None]) & (place[None, :] < lasts[:, None])
    scores = tl.where(is_seen, tl.dot(queries, keys, input_precision="ieee") * scale, -float("inf"))
    higher = tl.maximum(best, tl.max(scores, 1))
    base = tl.where(higher > -float("inf"), higher, 0.0)  # of a query that has seen nothing yet
    shrink = tl.exp2(best - base)
    weights = tl.exp2(scores - base[:, None])
    out = out * shrink[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    return higher, total * shrink + tl.sum(weights, 1), out


attend_tokens = triton.jit(_attend_tokens)


def _attend_split(
    q: tl.tensor,
    tokens: tl.tensor,
    tables: tl.tensor,
    lengths: tl.tensor,
    parts: tl.tensor,
    sums: tl.tensor,
    table_stride: int,
    splits: int,
    scale: float,  # times log2(e): exponentials are of base 2
    window: int,  # 0: all tokens are seen
    QUERIES: tl.constexpr,  # that share a key-value head
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,  # head_dim, padded
    BLOCK: tl.constexpr,  # tokens of a block of the cache
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,  # queries, padded
) -> None:
    """One split of one sequence, for the heads of one key-value head: mean of values, log2 of the sum of weights."""
    sequence, kv_head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + sequence)
    first = tl.maximum(length - window, 0) if window > 0 else 0
    span = tl.cdiv(tl.cdiv(length - first, splits), TOKENS) * TOKENS
    begin = first + split * span
    end = tl.minimum(begin + span, length)
    member, channel = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    is_query, is_channel = member < QUERIES, channel < HEAD_DIM
    head = (sequence * KV_HEADS + kv_head) * QUERIES + member
    is_part = is_query[:, None] & is_channel[None, :]
    queries = tl.load(q + head[:, None] * HEAD_DIM + channel[None, :], mask=is_part, other=0.0)
    best = tl.full((ROWS,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    out = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    table = tables + sequence * table_stride
    firsts, lasts = tl.full((ROWS,), begin, dtype=tl.int32), tl.full((ROWS,), end, dtype=tl.int32)
    for at in range(begin, end, TOKENS):
        best, total, out = attend_tokens(
            queries, tokens, table, at, end, firsts, lasts, kv_head, scale, best, total, out,
            KV_HEADS, HEAD_DIM, WIDTH, BLOCK, TOKENS,
        )  # fmt: skip
    out = out / tl.where(total > 0, total, 1.0)[:, None]
    place = head * splits + split
    tl.store(parts + place[:, None] * HEAD_DIM + channel[None, :], out, mask=is_part)
    tl.store(sums + place, best + tl.log2(total), mask=is_query)


_attend = triton.jit(_attend_split)


def _join_splits(
    parts: tl.tensor,
    sums: tl.tensor,
    whole: tl.tensor,
    splits: int,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
    STRIDE: tl.constexpr,
) -> None:
    """One head of one row: the mean of its splits' means, weighted by their sums."""
    head = tl.program_id(0).to(tl.int64)
    split, channel = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    is_split, is_channel = split < splits, channel < HEAD_DIM
    logs = tl.load(sums + head * splits + split, mask=is_split, other=-float("inf"))
    best = tl.max(logs, 0)
    weights = tl.where(best > -float("inf"), tl.exp2(logs - best), 0.0)
    mask = is_split[:, None] & is_channel[None, :]
    means = tl.load(parts + (head * splits + split)[:, None] * HEAD_DIM + channel[None, :], mask=mask, other=0.0)
    total = tl.sum(weights, 0)
    out = tl.sum(means * weights[:, None], 0) / tl.where(total > 0, total, 1.0)
    tl.store(whole + head * STRIDE + channel, out, mask=is_channel)
    if STRIDE > HEAD_DIM:
        tl.store(whole + head * STRIDE + HEAD_DIM, (best + tl.log2(total)) * 0.6931471805599453)  # ln(2)


_join = triton.jit(_join_splits)
