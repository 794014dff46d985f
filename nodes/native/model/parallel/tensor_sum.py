"""Sums over the tensor ranks of a stage: through the memory of each node, then between one rank of each node."""

import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from ...options import ParallelOptions
from .shared_memory import SharedMemory

# Longer than any step. Whether a rank is alive is for the lifeline to say, not for a collective's patience.
PATIENCE = timedelta(days=365)


class TensorSum:
    """All-reduce (sum) over the tensor ranks of one rank's stage."""

    def __init__(self, memory: SharedMemory | None, spans_nodes: bool, group: dist.ProcessGroup | None) -> None:
        """
        Args:
            memory: shared with others of them; None: there are none here, or they share none.
            spans_nodes: others remain, to sum with over `group`.
            group: one rank of each node, or all where none share memory; None where this rank is not among them.
        """
        self._memory, self._spans_nodes, self._group = memory, spans_nodes, group
        self.seconds = 0.0  # between nodes, waiting included

    @property
    def memory(self) -> SharedMemory | None:
        """Memory that all tensor ranks of the stage share; None where they share none."""
        return None if self._spans_nodes else self._memory

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Sum x over the ranks in place, in float32 within a node. Raises RuntimeError where a rank is gone."""
        if self._memory is not None:
            _in_float32(x, self._memory.all_reduce)
        if self._spans_nodes:
            self._between_nodes(x)
            if self._memory is not None:
                _in_float32(x, self._memory.broadcast)
        return x

    def _between_nodes(self, x: torch.Tensor) -> None:
        if self._group is not None:
            began = time.perf_counter()
            dist.all_reduce(x, group=self._group)
            self.seconds += time.perf_counter() - began


def make_tensor_sum(place: ParallelOptions, memory: SharedMemory | None) -> TensorSum:
    """Make the TensorSum of this rank, where ranks of a node share `memory`. All ranks of all stages must call it."""
    here, alike = place.ranks_here, place.tensor_groups
    firsts = [[rank for rank in ranks if rank == ranks.start or rank % here == 0] for ranks in alike]
    groups = [dist.new_group(ranks, timeout=PATIENCE) if len(ranks) > 1 else None for ranks in firsts]
    own = place.rank // place.tensor_parallel
    group = groups[own] if place.rank in firsts[own] else None
    return TensorSum(memory if memory and memory.sums else None, len(firsts[own]) > 1, group)


def _in_float32(x: torch.Tensor, change: Callable[[torch.Tensor], None]) -> None:
    wide = x.float()
    change(wide)
    if wide is not x:
        x.copy_(wide)
