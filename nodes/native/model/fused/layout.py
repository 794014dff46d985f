"""One step's chunks as the arrays that the library reads, built once for all layers."""

from collections.abc import Sequence
from itertools import chain, pairwise

import torch

from ..step import Chunk, cumulative

# Longer chunks attend in blocks, which read keys and values once for many queries. Shorter ones, such as tokens that a
# draft proposes, are computed bit by bit as if they came one after the other.
_SINGLE = 16
PIECE = 256  # tokens of context in a piece of work; kSplit of kernels/attention_rows.h
_BLOCK = 32  # rows


class Layout:
    """Rows are the step's tokens: first those that attend one by one, longest context first, then the longer chunks."""

    def __init__(self, chunks: Sequence[Chunk], block_size: int) -> None:
        order = sorted(range(len(chunks)), key=lambda i: (len(chunks[i].tokens) > _SINGLE, -chunks[i].start))
        self.chunks = ordered = [chunks[i] for i in order]
        ends = cumulative([len(chunk.tokens) for chunk in ordered])
        short = sum(len(chunk.tokens) <= _SINGLE for chunk in ordered)
        self.single = ends[short - 1] if short else 0
        places = [range(chunk.start, chunk.start + len(chunk.tokens)) for chunk in ordered]
        positions = list(chain.from_iterable(places))
        self.tokens = torch.tensor(list(chain.from_iterable(chunk.tokens for chunk in ordered)))
        self.positions = torch.tensor(positions)
        self.sequence = torch.tensor([line for line, place in enumerate(places) for _ in place], dtype=torch.int32)
        used = [chunk.blocks[: place[-1] // block_size + 1] for chunk, place in zip(ordered, places, strict=True)]
        self.tables = padded(used)
        pieces = cumulative([position // PIECE + 1 for position in positions[: self.single]])
        self.split_start = torch.tensor([0, *pieces], dtype=torch.int32)
        self.pieces = pieces[-1] if pieces else 0
        starts = [self.single, *ends[short:]]
        blocks = [
            (row, min(_BLOCK, stop - row)) for start, stop in pairwise(starts) for row in range(start, stop, _BLOCK)
        ]
        self.block_rows = torch.tensor(blocks, dtype=torch.int32).view(-1, 2)
        end_of = dict(zip(order, ends, strict=True))
        wanted = [row for i, c in enumerate(chunks) for row in range(end_of[i] - c.num_logits, end_of[i])]
        self.logits_rows = torch.tensor(wanted, dtype=torch.int64)  # may be none


def padded(tables: Sequence[Sequence[int]]) -> torch.Tensor:
    """int32 [sequences, blocks of the longest, at least one]."""
    width = max(1, *map(len, tables))
    return torch.tensor([[*blocks, *[0] * (width - len(blocks))] for blocks in tables], dtype=torch.int32)
