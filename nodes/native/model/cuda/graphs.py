"""Decode steps as CUDA graphs: some hundred kernels in one launch, which a CPU could not start as fast as a GPU ends
them.

A graph has fixed addresses and shapes: its input lies in tensors that are filled before each launch, and there is one
for each of some numbers of sequences; a step takes the next larger one, with rows that nobody asked for. Lengths and
block tables are read on the GPU. Ranks that compute together record and launch the same graphs in the same order, their
collectives included.
"""

from collections.abc import Sequence
from itertools import chain

import torch

from ..batch import Batch
from ..kv_cache import KVCache
from ..paged import BlockGroup
from ..plan import AttentionPlan
from ..runner import PlainDecoder
from ..step import Chunk, StepOutput


class GraphedDecoder:
    """A decoder on a GPU: steps that only decode are recorded, all others go through `plain`."""

    def __init__(self, plain: PlainDecoder, context_length: int, most: int, takes: torch.dtype | None) -> None:
        """Record steps of up to `most` sequences. `takes`: dtype of x of the stage before, None for a first stage."""
        self._plain = plain
        cache, config = plain.cache, plain.config
        self._inputs = _Inputs(cache, most, -(-context_length // cache.block_size))
        self._x = None if takes is None else torch.zeros(most, config.hidden_size, dtype=takes, device=cache.device)
        self._windows = set(config.windows)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        pool = torch.cuda.graph_pool_handle()
        for size in reversed(graph_sizes(most)):  # the largest first: the smaller ones then share its memory
            self._compute(size)  # compiles kernels
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Other threads of this process may use CUDA meanwhile, NCCL's watchdog for one.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                result = self._compute(size)
            self._graphs[size] = graph, result
        self._sizes = sorted(self._graphs)

    def forward(self, chunks: Sequence[Chunk], x: torch.Tensor | None = None) -> StepOutput:
        """Compute one step, as `Decodes.forward` describes; a step that only decodes is replayed as a graph."""
        count = len(chunks)
        is_decode = all(len(chunk.tokens) == 1 and chunk.num_logits == 1 for chunk in chunks)
        if not (is_decode and count <= self._sizes[-1]):
            return self._plain.forward(chunks, x)
        size = next(size for size in self._sizes if size >= count)
        self._inputs.fill(chunks, size)
        if x is not None and self._x is not None:
            self._x[:count].copy_(x)
        graph, result = self._graphs[size]
        graph.replay()
        return StepOutput(result[:count])

    def _compute(self, size: int) -> torch.Tensor:
        x = None if self._x is None else self._x[:size].clone()  # layers add to it in place
        return self._plain.decoder.forward(self._inputs.batch(size, self._windows), self._plain.cache, x).rows


class _Inputs:
    """What a graph reads."""

    def __init__(self, cache: KVCache, most: int, blocks: int) -> None:
        self._cache, device = cache, cache.device
        self._tokens, self._positions = (torch.zeros(most, dtype=torch.int64, device=device) for _ in range(2))
        self._lengths = torch.zeros(most, dtype=torch.int32, device=device)
        self._tables = torch.zeros(most, blocks, dtype=torch.int32, device=device)

    def fill(self, chunks: Sequence[Chunk], size: int) -> None:
        """Write a step's chunks, in their order, and rows of padding up to `size`. One copy to the GPU."""
        width, spare = max(len(chunk.blocks) for chunk in chunks), [0] * (size - len(chunks))
        rows = [
            *(chunk.tokens[0] for chunk in chunks), *spare,
            *(chunk.start for chunk in chunks), *spare,
            *(chunk.start + 1 for chunk in chunks), *spare,
            *chain.from_iterable((*chunk.blocks, *[0] * (width - len(chunk.blocks))) for chunk in chunks),
        ]  # fmt: skip
        # Not from pinned memory: the copy then has left `rows` when this returns.
        there = torch.tensor(rows, dtype=torch.int32).to(self._cache.device, non_blocking=True)
        tokens, positions, lengths = there[: 3 * size].view(3, size)
        self._tokens[:size].copy_(tokens)
        self._positions[:size].copy_(positions)
        self._lengths[:size].copy_(lengths)
        self._tables[: len(chunks), :width].copy_(there[3 * size :].view(len(chunks), width))

    def batch(self, size: int, windows: set[int | None]) -> Batch:
        """The first `size` rows; what depends on their content is computed on the GPU."""
        positions, lengths, tables = self._positions[:size], self._lengths[:size], self._tables[:size]
        block_size = self._cache.block_size
        blocks = tables.gather(1, (positions // block_size).unsqueeze(1)).squeeze(1).long()
        blocks = torch.where(lengths > 0, blocks, -1)  # whose slots are all below 0
        rows = slice(0, size)
        return Batch(
            tokens=self._tokens[:size],
            positions=positions,
            slots=self._cache.slots(blocks, positions % block_size),
            plans={w: AttentionPlan((BlockGroup(rows, tables, lengths, w),), ()) for w in windows},
            wanted_rows=torch.arange(size, device=self._cache.device),
        )


def graph_sizes(most: int) -> list[int]:
    """1, 2, 4, 8, from there on every 8th up to 64, every 16th up to 128, every 32nd; and `most`."""
    steps = [1, 2, 4, *range(8, 64, 8), *range(64, 128, 16), *range(128, most, 32)]
    return [*(size for size in steps if size < most), most]
