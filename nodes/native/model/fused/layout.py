"""One step's chunks as the arrays that the library reads, built once for all layers."""

from collections.abc import Sequence
from itertools import pairwise

import torch

from ..rows import StepRows
from ..step import Chunk, cumulative

# Prompts attend in blocks, which read keys and values once for many queries. A row's result does not depend on the
# others of its block. Generated tokens attend one by one, also where many are computed at once, as after a preemption
# or when an answer that another worker began goes on: blocks round sums in another order, and the answer would change.
_AT_ONCE = 2048  # pieces of work whose results lie in memory at once, beyond those of a single row
PIECE = 256  # tokens of context in a piece of work; kSplit of kernels/attention_rows.h
_BLOCK = 32  # rows


class RowLayout:
    """Where the rows of a step, in the order of `StepRows`, find their position, their sequence and its blocks.

    int64 tensors `tokens` and `positions` [rows] and `wanted_rows`; the others are int32, and described for `Step` of
    kernels/model.h. `num_logits` of the wanted rows have logits, the others are pooled (`StepRows`).
    """

    def __init__(self, chunks: Sequence[Chunk], block_size: int) -> None:
        rows = StepRows(chunks, _attends_singly)
        self.chunks, self.ends = rows.chunks, rows.ends
        self.single = rows.ends[rows.num_short - 1] if rows.num_short else 0  # rows that attend one by one
        positions = rows.positions
        self.tokens, self.positions = torch.tensor(rows.tokens), torch.tensor(positions)
        self.sequence = torch.tensor([line for line, p in enumerate(rows.places) for _ in p], dtype=torch.int32)
        lines = zip(rows.chunks, rows.places, strict=True)
        used = [chunk.blocks[: place[-1] // block_size + 1] for chunk, place in lines]
        self.tables = padded(used)
        pieces = [position // PIECE + 1 for position in positions[: self.single]]
        self.split_start = torch.tensor([0, *cumulative(pieces)], dtype=torch.int32)
        self.pieces = pieces_at_once(pieces)
        starts = [self.single, *rows.ends[rows.num_short :]]
        blocks = [
            (row, min(_BLOCK, stop - row)) for start, stop in pairwise(starts) for row in range(start, stop, _BLOCK)
        ]
        self.block_rows = torch.tensor(blocks, dtype=torch.int32).view(-1, 2)
        self.num_logits, self.pool_lengths = len(rows.logits_rows), rows.pool_lengths
        self.wanted_rows = torch.tensor(rows.wanted_rows, dtype=torch.int64)  # may be none


def _attends_singly(chunk: Chunk) -> bool:
    return not chunk.prompt


def pieces_at_once(pieces: Sequence[int]) -> int:
    """For how many pieces of work there is to be room, where each row has so many."""
    return max(min(sum(pieces), _AT_ONCE), *pieces, 0)


def padded(tables: Sequence[Sequence[int]]) -> torch.Tensor:
    """Pad block tables with zeros to int32 [sequences, blocks of the longest, at least one]."""
    width = max(1, *map(len, tables))
    return torch.tensor([[*blocks, *[0] * (width - len(blocks))] for blocks in tables], dtype=torch.int32)
