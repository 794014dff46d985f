"""Ranks that share the tokens of every sequence: each has all layers of its stage, and a part of the KV cache.

Block `id` of the KV cache lies with sequence rank id % size, as its block id // size. A step's rows are cut into
shares. Each rank computes the linear layers of its share; queries, keys and values of all rows come to all ranks, which
attend with every query to the keys that they hold; and what they find goes back to whose row it is, to be merged by the
logarithm of each part's sum of exponentials, as in FlashAttention (arXiv 2205.14135). It is pass-Q of arXiv 2411.01783.

Where a step has few rows, every rank computes them all: reading the weights takes as long as for a share of them, and
rows need not be sent.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch

_FEW = 16  # rows that every rank computes

Exchange = Callable[[torch.Tensor, torch.Tensor, Sequence[int], Sequence[int]], None]  # see Ranks.all_to_all


class HeldKeys:
    """Those keys of a sequence that one rank holds: in the order of their positions, those of its blocks."""

    def __init__(self, blocks: Sequence[int], rank: int, size: int, block_size: int) -> None:
        """`blocks` are the sequence's in order; there are `size` ranks."""
        ids = np.asarray(blocks, dtype=np.int64)
        held = ids % size == rank
        self.blocks: list[int] = (ids[held] // size).tolist()
        self._size, self._local = block_size, np.append(ids // size, 0)
        self._held = np.append(held, False)
        self._before = np.concatenate(([0], held.cumsum())) * block_size

    def before(self, positions: np.ndarray) -> np.ndarray:
        """How many of the keys before `positions` are held."""
        block, offset = np.divmod(positions, self._size)
        found: np.ndarray = self._before[block] + self._held[block] * offset
        return found

    def seen(self, positions: np.ndarray, window: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the range of held keys that the queries at `positions` see: [rows] first, [rows] behind the last."""
        first = np.zeros_like(positions) if window is None else self.before(np.maximum(positions + 1 - window, 0))
        return first, self.before(positions + 1)

    def slots(self, positions: np.ndarray) -> np.ndarray:
        """Where the keys at `positions` lie: block * block size + offset; -1 where another rank holds them."""
        block, offset = np.divmod(positions, self._size)
        found: np.ndarray = np.where(self._held[block], self._local[block] * self._size + offset, -1)
        return found


class SequenceGroup:
    """A rank's view of those that share its tokens. Tensors returned are valid until the next call of that kind."""

    def __init__(self, rank: int, size: int, exchange: Exchange) -> None:
        self.rank, self.size = rank, size
        self._exchange = exchange
        self._memory: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def held(self, blocks: Sequence[int], block_size: int) -> HeldKeys:
        """Those keys of a sequence in `blocks` that this rank holds."""
        return HeldKeys(blocks, self.rank, self.size, block_size)

    def share(self, count: int) -> slice:
        """Those of a step's `count` rows that this rank computes."""
        if self._is_few(count):
            return slice(0, count)
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, x: torch.Tensor, count: int) -> torch.Tensor:
        """Gather all ranks' shares x [rows, ...] to [count, ...], the same at every rank."""
        if self._is_few(count):
            return x
        out = self._space("gathered", x, count)
        self._exchange(self._copies(x), out, [len(x)] * self.size, self._shares(count))
        return out

    def merge(self, parts: torch.Tensor) -> torch.Tensor:
        """Return float32 attention [rows of the share, heads, head_dim] to all keys.

        `parts`, float32 [all rows, heads, head_dim + 1], are what this rank's keys give, as `merge_partial` takes them.
        """
        count = len(parts)
        if self._is_few(count):
            sent, parts = [count] * self.size, self._copies(parts)
        else:
            sent = self._shares(count)
        own = sent[self.rank]
        out = self._space("merged", parts, own * self.size)
        self._exchange(parts, out, sent, [own] * self.size)
        return merge_partial(out.view(self.size, own, *parts.shape[1:]))

    def gather_at_first(self, x: torch.Tensor, rows: torch.Tensor, count: int) -> torch.Tensor:
        """Gather `rows` (int64) of all `count`, whose shares are x, at the first rank, in order; none elsewhere."""
        if self._is_few(count) or not len(rows):
            return x[rows] if self.rank == 0 else x[:0]
        order = rows.argsort()
        ends = torch.tensor(self._shares(count)).cumsum(0)
        of_rank = torch.searchsorted(ends, rows[order].cpu(), right=True).bincount(minlength=self.size).tolist()
        first = sum(of_rank[: self.rank])
        own = rows[order[first : first + of_rank[self.rank]]] - self.share(count).start
        sent = [of_rank[self.rank], *[0] * (self.size - 1)]
        received = of_rank if self.rank == 0 else [0] * self.size
        out = self._space("brought", x, sum(received))
        self._exchange(x[own], out, sent, received)
        return out[order.argsort()] if self.rank == 0 else out

    def _is_few(self, count: int) -> bool:
        return count <= max(_FEW, self.size)

    def _shares(self, count: int) -> list[int]:
        ends = [count * rank // self.size for rank in range(self.size + 1)]
        return [stop - start for start, stop in pairwise(ends)]

    def _copies(self, x: torch.Tensor) -> torch.Tensor:
        """One for each rank: unlike an all-gather, an all-to-all takes shares of any length."""
        copies = self._space("copies", x, len(x) * self.size)
        copies.view(self.size, *x.shape).copy_(x)
        return copies

    def _space(self, name: str, like: torch.Tensor, rows: int) -> torch.Tensor:
        """Room for `rows` rows: an allocator would map fresh pages for every layer."""
        needed, key = rows * like.shape[1:].numel(), (name, like.dtype)
        if key not in self._memory or len(self._memory[key]) < needed:
            self._memory[key] = torch.empty(needed, dtype=like.dtype, device=like.device)
        return self._memory[key][:needed].view(rows, *like.shape[1:])


def merge_partial(parts: torch.Tensor) -> torch.Tensor:
    """Merge partial attention [ranks, rows, heads, head_dim + 1] of several ranks to [rows, heads, head_dim].

    A part is the attention to some of the keys, and the logarithm of the sum of the exponentials of their scores: -inf
    where there are none, with zeros before it. Some rank has at least the query's own key.
    """
    weights = parts[..., -1:].softmax(0)
    out = parts[0, ..., :-1] * weights[0]
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        out.addcmul_(part[..., :-1], weight)
    return out
