"""One step's chunks as index tensors, built once and shared by all layers. Rows are in the order of rows.py."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ....quant.rope import Rotation
from .attention import attend, rotate_and_store
from .cuda import reads_cache
from .kv_cache import KVCache
from .paged import BlockGroup, PagedGroup, make_group
from .plan import AttentionPlan, DecodeGroup, Prefill
from .rows import StepRows
from .step import Chunk

# Computing a group of its own costs as much as attending to about this many tokens of padding.
_GROUP_TOKENS = 256
# More cached tokens than this are not attended to at once, so that a gathered copy stays small. What a CPU gathers
# should still be in its cache when it is read: 4096 tokens were 10 to 25% faster than 16384, with 1024 slower again.
_GROUP_MOST, _GATHER_MOST = 16384, 4096


class ForwardBatch(Protocol):
    """The rows that a decoder computes in one step, and how they attend.

    A decoder leaves attention to its batch, because the batch knows where keys and values lie: all in this process, or
    spread over sequence ranks that each compute a share of the rows.
    """

    @property
    def tokens(self) -> torch.Tensor:
        """Token ids, int64 [n]."""

    @property
    def positions(self) -> torch.Tensor:
        """Positions of the tokens in their sequences, int64 [n]."""

    def attend(
        self, qkv: torch.Tensor, rotation: Rotation, layer: int, window: int | None, cache: KVCache
    ) -> torch.Tensor:
        """Compute attention [n, heads * head_dim] of qkv [n, heads + 2 * kv_heads, head_dim] in layer `layer`.

        Queries and keys are rotated by `rotation`, which is `Rope.at` of the positions; keys and values are written to
        `cache`. `window` is the number of tokens that each query sees, None for all.
        """

    @property
    def pool_lengths(self) -> Sequence[int]:
        """How many of the last of the `wanted` rows each chunk has that pools hidden states."""

    def wanted(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rows of x [n, hidden_size] whose logits are wanted, then those that are pooled.

        Both are in the order of the chunks and their tokens.
        """


@dataclass(frozen=True, slots=True)
class Batch:
    """All rows of a step, whose keys and values all lie in this process."""

    tokens: torch.Tensor  # int64 [n]
    positions: torch.Tensor  # int64 [n]
    slots: torch.Tensor  # for KVCache.write
    plans: dict[int | None, AttentionPlan]  # by window
    wanted_rows: torch.Tensor  # int64
    pool_lengths: Sequence[int] = ()

    def attend(
        self, qkv: torch.Tensor, rotation: Rotation, layer: int, window: int | None, cache: KVCache
    ) -> torch.Tensor:
        """Write keys and values to `cache`; return attention [n, heads * head_dim]."""
        q, kv = rotate_and_store(qkv, rotation, layer, cache, self.slots)
        return attend(q, kv, layer, cache, self.plans[window])

    def wanted(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rows of x [n, hidden_size] whose logits are wanted, then those that are pooled."""
        return x[self.wanted_rows]


def make_batch(
    chunks: Sequence[Chunk], cache: KVCache, windows: Collection[int | None], paged_heads: int | None
) -> Batch:
    """Make the batch of a step: its tensors on the cache's device, and a plan of attention for each window.

    Args:
        chunks: at least one.
        windows: attention windows of the model's layers, in tokens; None for layers that see all.
        paged_heads: the number of query heads where decode tokens attend to keys where they lie in the cache
            (`paged.supports`), None where keys are gathered first.
    """
    device = cache.device
    rows, size = StepRows(chunks), cache.block_size
    blocks = [c.blocks[p // size] for c, place in zip(rows.chunks, rows.places, strict=True) for p in place]
    positions = torch.tensor(rows.positions, device=device)
    planner = _Planner(rows, cache, paged_heads)
    return Batch(
        tokens=torch.tensor(rows.tokens, device=device),
        positions=positions,
        slots=cache.slots(torch.tensor(blocks, device=device), positions % size),
        plans={window: planner.plan(window) for window in windows},
        wanted_rows=torch.tensor(rows.wanted_rows, dtype=torch.int64, device=device),
        pool_lengths=rows.pool_lengths,
    )


def group_lengths(lengths: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Cut descending `lengths` into groups [start, stop) with little padding, few groups and at most `most` tokens."""
    groups, start, padding = [], 0, 0
    for index, length in enumerate(lengths):
        padding += lengths[start] - length
        if padding > _GROUP_TOKENS or lengths[start] * (index + 1 - start) > max(most, lengths[start]):
            groups.append((start, index))
            start, padding = index, 0
    return [*groups, (start, len(lengths))] if lengths else []


class _Planner:
    """Makes the AttentionPlan of one window after the other."""

    def __init__(self, rows: StepRows, cache: KVCache, paged_heads: int | None) -> None:
        self._decodes, self._prefills = rows.chunks[: rows.num_short], rows.chunks[rows.num_short :]
        self._prefill_ends = rows.ends[rows.num_short :]
        self._cache, self._paged_heads = cache, paged_heads

    def plan(self, window: int | None) -> AttentionPlan:
        prefills = zip(self._prefills, self._prefill_ends, strict=True)
        planned = tuple(plan_prefill(chunk, end, window, self._cache) for chunk, end in prefills)
        decodes = self._decodes
        if reads_cache(self._cache.format, self._cache.device):
            return AttentionPlan((self._blocks(window),) if decodes else (), planned)
        gathers = self._paged_heads is None and self._cache.device.type == "cpu"
        lengths = [chunk.start + 1 - _first(chunk, window, self._cache) for chunk in decodes]
        groups = group_lengths(lengths, _GATHER_MOST if gathers else _GROUP_MOST)
        return AttentionPlan(tuple(self._decode(decodes[start:stop], start, window) for start, stop in groups), planned)

    def _blocks(self, window: int | None) -> BlockGroup:
        width = max(len(chunk.blocks) for chunk in self._decodes)
        tables = [[*chunk.blocks, *[0] * (width - len(chunk.blocks))] for chunk in self._decodes]
        lengths = [chunk.start + 1 for chunk in self._decodes]
        device = self._cache.device
        return BlockGroup(
            slice(0, len(lengths)),
            torch.tensor(tables, dtype=torch.int32, device=device),
            torch.tensor(lengths, dtype=torch.int32, device=device),
            window,
        )

    def _decode(self, chunks: Sequence[Chunk], start: int, window: int | None) -> DecodeGroup | PagedGroup:
        size = self._cache.block_size
        firsts = [_first(chunk, window, self._cache) for chunk in chunks]
        length = max(chunk.start + 1 - first for chunk, first in zip(chunks, firsts, strict=True))
        width = -(-length // size)
        tables = [list(c.blocks[first // size : c.start // size + 1]) for c, first in zip(chunks, firsts, strict=True)]
        # Padding repeats a block of the same sequence: masked, and of no other's values.
        tables = [table + table[-1:] * (width - len(table)) for table in tables]
        queries = torch.tensor([[c.start - first] for c, first in zip(chunks, firsts, strict=True)])
        mask = _mask(queries, length, window, self._cache.format.read_dtype, self._cache.device)
        mask = None if mask is None else mask.unsqueeze(1)
        rows, blocks = slice(start, start + len(chunks)), torch.tensor(tables, device=self._cache.device)
        if self._paged_heads is not None:
            return make_group(rows, blocks, length, mask, self._paged_heads, self._cache)
        return DecodeGroup(rows, self._cache.rows(blocks), length, None if mask is None else mask.unsqueeze(1))


def plan_prefill(chunk: Chunk, end: int, window: int | None, cache: KVCache) -> Prefill:
    """Say what the rows of a prefill chunk attend to; `end` is the row behind its last."""
    count, size = len(chunk.tokens), cache.block_size
    rows = slice(end - count, end)
    if chunk.start == 0 and (window is None or count <= window):
        return Prefill(rows)
    first = _first(chunk, window, cache)
    stop = chunk.start + count
    table = torch.tensor([list(chunk.blocks[first // size : -(-stop // size)])], device=cache.device)
    queries = torch.arange(chunk.start - first, stop - first).unsqueeze(1)
    mask = _mask(queries, stop - first, window, cache.format.dtype, cache.device)
    return Prefill(rows, cache.rows(table), stop - first, mask)


def _first(chunk: Chunk, window: int | None, cache: KVCache) -> int:
    """The first position that is gathered: the first that the chunk sees, or before it in its block."""
    seen = 0 if window is None else max(chunk.start + 1 - window, 0)
    return seen - seen % cache.block_size


def _mask(
    queries: torch.Tensor, length: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> torch.Tensor | None:
    """[n, length]: 0 where the query at place `queries` [n, 1] sees, -inf elsewhere. None: all see all."""
    keys = torch.arange(length)
    hidden = keys > queries
    if window is not None:
        hidden |= keys <= queries - window
    if not hidden.any():
        return None
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf).to(device)
