"""The batch of a sequence rank, which holds some of the keys and computes a share of the rows, in PyTorch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
import torch

from .....quant.rope import Rotation
from ..attention import rotate_and_store, rotated
from ..batch import group_lengths
from ..cuda import reads_cache
from ..kv_cache import KVCache
from ..rows import StepRows
from ..step import Chunk
from .partial_attention import PartialAttention
from .ranges import Ranges, make_ranges, tile_height
from .sequence import HeldKeys, SequenceGroup

_GATHER_MOST = 4096  # tokens that are gathered at once; see batch.py


class Attends(Protocol):
    """Some of a step's rows, and how they attend to the keys that this rank holds."""

    def attend(
        self, queries: torch.Tensor, pairs: torch.Tensor, layer: int, cache: KVCache, parts: torch.Tensor
    ) -> None:
        """Write to the rows' places in `parts`, float32 [n, heads, head_dim + 1], what `merge_partial` takes.

        `queries` [n, heads, head_dim] and `pairs` (keys and values) [n, 2, kv_heads, head_dim] are those of all rows;
        those that this rank holds are in the cache already.
        """


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """A sequence rank's share of a step's rows, and how all rows attend to the keys that it holds."""

    tokens: torch.Tensor
    positions: torch.Tensor
    count: int  # of all ranks' rows
    held: torch.Tensor  # int64: of all rows, those whose keys this rank holds
    slots: torch.Tensor  # for KVCache.write, of these
    own_slots: torch.Tensor | None  # of all rows, below 0 where not held: where each rank has all, and a kernel for it
    plans: dict[int | None, Sequence[Attends]]  # by window
    wanted_rows: torch.Tensor  # of all rows
    pool_lengths: Sequence[int]
    group: SequenceGroup

    def attend(
        self, qkv: torch.Tensor, rotation: Rotation, layer: int, window: int | None, cache: KVCache
    ) -> torch.Tensor:
        """Write this rank's keys and values; return attention [own rows, heads * head_dim] to the keys of all ranks."""
        if self.own_slots is not None:
            queries, pairs = rotate_and_store(qkv, rotation, layer, cache, self.own_slots)
        else:
            queries, pairs = self._gathered(*rotated(qkv, rotation, cache.kv_heads))
            if len(self.held):
                cache.write(layer, self.slots, pairs[self.held])
        heads, head_dim = queries.shape[1:]
        parts = torch.zeros(self.count, heads, head_dim + 1, device=qkv.device)
        parts[..., -1] = -torch.inf
        for rows in self.plans[window]:
            rows.attend(queries, pairs, layer, cache, parts)
        return self.group.merge(parts).to(qkv.dtype).flatten(1)

    def wanted(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rows of x whose logits are wanted, then those to be pooled; none but at the first rank."""
        return self.group.gather_at_first(x, self.wanted_rows, self.count)

    def _gathered(self, q: torch.Tensor, kv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather queries, and keys and values, of all rows from each rank's share."""
        heads, head_dim = q.shape[1:]
        qkv = self.group.gather(torch.cat((q, kv.flatten(1, 2)), 1), self.count)
        return qkv[:, :heads], qkv[:, heads:].view(self.count, 2, -1, head_dim)


def make_sequence_batch(
    chunks: Sequence[Chunk], cache: KVCache, windows: Collection[int | None], group: SequenceGroup, heads: int
) -> SequenceBatch:
    """Lay the chunks out: all rows in the order of `StepRows`, the tokens and positions of this rank's share.

    The rank has so many query `heads`.
    """
    device = cache.device
    rows = StepRows(chunks)
    count = rows.ends[-1]
    share = group.share(count)
    places = [np.arange(place.start, place.stop) for place in rows.places]
    keys = [group.held(chunk.blocks, cache.block_size) for chunk in rows.chunks]
    slots = torch.from_numpy(np.concatenate([held.slots(place) for held, place in zip(keys, places, strict=True)]))
    held = (slots >= 0).nonzero().flatten()
    found = slots[held].to(device)
    has_all = share == slice(0, count) and reads_cache(cache.format, device)
    planner = _Planner(rows, places, keys, cache, heads // cache.kv_heads)
    return SequenceBatch(
        tokens=torch.tensor(rows.tokens[share], device=device),
        positions=torch.from_numpy(np.concatenate(places)[share]).to(device),
        count=count,
        held=held.to(device),
        slots=_places(found, cache),
        own_slots=_places(slots.to(device), cache) if has_all else None,
        plans={window: planner.plan(window) for window in windows},
        wanted_rows=torch.tensor(rows.wanted_rows, dtype=torch.int64, device=device),
        pool_lengths=rows.pool_lengths,
        group=group,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """Which of the keys of a sequence that this rank holds each row sees: those from `first` up to `last`."""

    chunk: Chunk
    blocks: Sequence[int]
    first: np.ndarray
    last: np.ndarray

    def start(self, block_size: int) -> int:
        """The first key to be gathered: the first that is seen, or before it in its block."""
        return int(self.first[0]) // block_size * block_size


class _Planner:
    """Says of one window after the other how the rows attend."""

    def __init__(
        self,
        rows: StepRows,
        places: Sequence[np.ndarray],
        keys: Sequence[HeldKeys],
        cache: KVCache,
        queries: int,
    ) -> None:
        self._lines = list(zip(rows.chunks, places, keys, strict=True))
        self._decodes, self._ends = rows.num_short, [0, *rows.ends]
        self._cache, self._queries = cache, queries

    def plan(self, window: int | None) -> Sequence[Attends]:
        seen = [_Seen(chunk, keys.blocks, *keys.seen(place, window)) for chunk, place, keys in self._lines]
        return self._ranges(seen) if reads_cache(self._cache.format, self._cache.device) else self._partials(seen)

    def _ranges(self, seen: Sequence[_Seen]) -> list[Ranges]:
        """Decodes, then chunks."""
        cache, decodes = self._cache, self._decodes
        height = tile_height(self._queries, cache.head_dim, cache.format.dtype)
        kinds = ((seen[:decodes], 0, 1), (seen[decodes:], self._ends[decodes], height))
        return [make_ranges(some, start, rows, cache.device) for some, start, rows in kinds if some]

    def _partials(self, seen: Sequence[_Seen]) -> list[PartialAttention]:
        size, decodes = self._cache.block_size, self._decodes
        lengths = [int(each.last[-1]) - each.start(size) for each in seen[:decodes]]
        descending = [*accumulate(reversed(lengths), max)][::-1]  # positions are, what is held nearly so
        groups = group_lengths(descending, _GATHER_MOST)
        pieces = [self._partial(seen[start:stop], slice(start, stop)) for start, stop in groups]
        rows = (slice(*pair) for pair in pairwise(self._ends[decodes:]))
        pieces += [self._partial([each], where) for each, where in zip(seen[decodes:], rows, strict=True)]
        return [piece for piece in pieces if piece is not None]

    def _partial(self, seen: Sequence[_Seen], rows: slice) -> PartialAttention | None:
        """None: no row sees any key."""
        cache, size = self._cache, self._cache.block_size
        is_fresh = len(seen) == 1 and seen[0].chunk.start == 0 and len(seen[0].chunk.tokens) > 1
        starts = [0 if is_fresh else each.start(size) for each in seen]
        length = max(int(each.last[-1]) - start for each, start in zip(seen, starts, strict=True))
        if length <= 0:
            return None
        hidden, blind = _hidden(seen, starts, length)
        dtype = cache.format.dtype if is_fresh else cache.format.read_dtype
        mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf).to(cache.device)
        dark = blind.to(cache.device) if blind.any() else None
        if is_fresh:
            return PartialAttention(rows, 1, None, self._fresh(seen[0], rows), length, mask, dark)
        width = -(-length // size)
        tables = [list(each.blocks[at // size : at // size + width]) for each, at in zip(seen, starts, strict=True)]
        # Padding repeats a block of the same sequence, or the first of all: masked.
        tables = [table + (table[-1:] or [0]) * (width - len(table)) for table in tables]
        found = cache.rows(torch.tensor(tables, device=cache.device))
        return PartialAttention(rows, len(seen), found, None, length, mask, dark)

    def _fresh(self, seen: _Seen, rows: slice) -> torch.Tensor:
        """Return the step's rows of a first chunk whose keys this rank holds, int64."""
        held = np.diff(seen.last, prepend=0) > 0
        return torch.from_numpy(rows.start + held.nonzero()[0]).to(self._cache.device)


def _places(slots: torch.Tensor, cache: KVCache) -> torch.Tensor:
    """What KVCache.write takes, below 0 where `slots`, of HeldKeys, are."""
    return cache.slots(slots // cache.block_size, slots % cache.block_size)


def _hidden(seen: Sequence[_Seen], starts: Sequence[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[sequences, rows of one, length]: which keys a row does not see; [rows]: which rows see none."""
    first, last = (
        torch.from_numpy(np.stack([getattr(each, name) - start for each, start in zip(seen, starts, strict=True)]))
        for name in ("first", "last")
    )
    places = torch.arange(length)
    hidden = (places >= last.unsqueeze(-1)) | (places < first.unsqueeze(-1))
    return hidden, (first >= last).flatten()
