"""One step's chunks as the arrays that the library reads, built once for all layers."""

from collections.abc import Collection, Sequence
from itertools import chain

import torch

from ..batch import Prefill, cumulative, plan_prefill
from ..kv_cache import KVCache
from ..step import Chunk

# Longer chunks attend by matrix products, which read keys and values once for many queries.
_IN_PLACE = 16
_PIECE = 256  # tokens of context in a piece of work; kSplit of kernels.cpp


class Layout:
    """Rows are the step's tokens: first those that attend in the library, longest context first, then the prompts."""

    def __init__(self, chunks: Sequence[Chunk], cache: KVCache, windows: Collection[int | None]) -> None:
        order = sorted(range(len(chunks)), key=lambda i: (len(chunks[i].tokens) > _IN_PLACE, -chunks[i].start))
        ordered = [chunks[i] for i in order]
        ends = cumulative([len(chunk.tokens) for chunk in ordered])
        in_place = sum(len(chunk.tokens) <= _IN_PLACE for chunk in ordered)
        places = [range(chunk.start, chunk.start + len(chunk.tokens)) for chunk in ordered]
        used = [
            chunk.blocks[: (place[-1] // cache.block_size) + 1] for chunk, place in zip(ordered, places, strict=True)
        ]
        width = max(map(len, used))
        self.attended = ends[in_place - 1] if in_place else 0
        self.tokens = torch.tensor(list(chain.from_iterable(chunk.tokens for chunk in ordered)))
        positions = list(chain.from_iterable(places))
        self.positions = torch.tensor(positions)
        lines = [line for line, place in enumerate(places) for _ in place]
        self.sequence = torch.tensor(lines, dtype=torch.int32)
        self.tables = torch.tensor([[*blocks, *[0] * (width - len(blocks))] for blocks in used], dtype=torch.int32)
        pieces = cumulative([position // _PIECE + 1 for position in positions[: self.attended]])
        self.split_start = torch.tensor([0, *pieces], dtype=torch.int32)
        self.pieces = pieces[-1] if pieces else 0
        prompts = list(zip(ordered, ends, strict=True))[in_place:]
        self.prompts: dict[int | None, list[Prefill]] = {
            window: [plan_prefill(chunk, end, window, cache) for chunk, end in prompts] for window in windows
        }
        end_of = dict(zip(order, ends, strict=True))
        wanted = [
            row for i, c in enumerate(chunks) for row in range(end_of[i] - c.num_logits, end_of[i])
        ]  # may be none
        self.logits_rows = torch.tensor(wanted, dtype=torch.int64)
