"""Rows that attend to the keys that a rank holds where these lie in the KV cache, by a kernel for GPUs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ..kv_cache import KVCache
from ..step import cumulative

# Numbers of a tile's queries, and how many queries it has at most, by bytes of a number: more leave the registers.
_TILES = {2: (1 << 14, 128), 4: (1 << 12, 32)}


class Seen(Protocol):
    """Which of the keys of a sequence that this rank holds each row sees: those from `first` up to `last`."""

    @property
    def blocks(self) -> Sequence[int]:
        """Blocks of this rank's cache in which the keys lie."""

    @property
    def first(self) -> np.ndarray:
        """[rows]: index of the first key that a row sees."""

    @property
    def last(self) -> np.ndarray:
        """[rows]: index behind the last key that a row sees."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Each of some rows sees a range of the keys in its sequence's blocks."""

    rows: slice  # of the step's
    tiles: torch.Tensor  # int32 [tiles, 3]: the first of its rows, how many there are, whose blocks
    height: int  # rows of a tile at most
    tables: torch.Tensor  # int32 [sequences, blocks]
    bounds: torch.Tensor  # int32 [2, rows]: the first key that is seen, and the one behind the last

    def attend(
        self, queries: torch.Tensor, pairs: torch.Tensor, layer: int, cache: KVCache, parts: torch.Tensor
    ) -> None:
        """Write to the rows' places in `parts`, as `Attends.attend`; all keys are read from the cache."""
        from ..cuda.ranges import attend_ranges

        attend_ranges(queries[self.rows], layer, cache, self, parts[self.rows])


def tile_height(queries: int, head_dim: int, dtype: torch.dtype) -> int:
    """Rows that a program attends with, where so many queries of each share a key-value head."""
    numbers, most = _TILES[dtype.itemsize]
    width = 1 << (head_dim - 1).bit_length()
    return max(min(numbers // width, most) // queries, 1)


def make_ranges(seen: Sequence[Seen], start: int, height: int, device: torch.device) -> Ranges:
    """Lay out tiles of at most `height` rows for sequences whose rows follow one another from row `start` on."""
    counts = [len(each.first) for each in seen]
    ends = cumulative(counts)
    tiles = [
        (row, min(height, end - row), index)
        for index, (count, end) in enumerate(zip(counts, ends, strict=True))
        for row in range(end - count, end, height)
    ]
    width = max(1, *(len(each.blocks) for each in seen))
    tables = np.zeros((len(seen), width), dtype=np.int32)
    for table, each in zip(tables, seen, strict=True):
        table[: len(each.blocks)] = each.blocks
    bounds = np.stack([np.concatenate([getattr(each, name) for each in seen]) for name in ("first", "last")])
    return Ranges(
        rows=slice(start, start + ends[-1]),
        tiles=torch.tensor(tiles, dtype=torch.int32, device=device),
        height=height,
        tables=torch.from_numpy(tables).to(device),
        bounds=torch.from_numpy(bounds.astype(np.int32)).to(device),
    )
