"""The order in which the tokens of a step become rows of the tensors that a decoder computes."""

from collections.abc import Callable, Sequence

from ....quant.checkpoint.embedding import Pooling
from .step import Chunk, cumulative


class StepRows:
    """One row for each token of a step: first all short chunks, the longest context first, then all longer chunks.

    Ranks that compute one step together get the same order from the same chunks.
    """

    def __init__(self, chunks: Sequence[Chunk], is_short: Callable[[Chunk], bool] | None = None) -> None:
        """By default, a chunk of one token is a short one."""
        is_short = is_short or _is_single
        order = sorted(range(len(chunks)), key=lambda i: (not is_short(chunks[i]), -chunks[i].start))
        self.chunks = [chunks[i] for i in order]
        self.ends = cumulative([len(chunk.tokens) for chunk in self.chunks])  # of each chunk: the row behind its last
        self.num_short = sum(map(is_short, self.chunks))  # chunks, not rows
        self.places = [range(chunk.start, chunk.start + len(chunk.tokens)) for chunk in self.chunks]  # in the sequence
        end_of = dict(zip(order, self.ends, strict=True))
        # Rows whose logits are wanted, maybe none, in the order of `chunks` as they were given.
        self.logits_rows = [row for i, c in enumerate(chunks) for row in range(end_of[i] - c.num_logits, end_of[i])]
        pooled = [_pooled(chunk, end_of[i]) for i, chunk in enumerate(chunks) if chunk.pooling is not None]
        self.wanted_rows = [*self.logits_rows, *(row for rows in pooled for row in rows)]  # and those to be pooled
        self.pool_lengths = [len(rows) for rows in pooled]  # how many of those each chunk has

    @property
    def tokens(self) -> list[int]:
        """The token of each row."""
        return [token for chunk in self.chunks for token in chunk.tokens]

    @property
    def positions(self) -> list[int]:
        """The position in its sequence of each row's token."""
        return [position for place in self.places for position in place]


def _pooled(chunk: Chunk, end: int) -> range:
    """The rows of a chunk, whose last is before `end`, that make its row of pooled hidden states."""
    start = end - len(chunk.tokens)
    if chunk.pooling is Pooling.LAST:
        return range(end - 1, end)
    return range(start, start + 1) if chunk.pooling is Pooling.CLS else range(start, end)


def _is_single(chunk: Chunk) -> bool:
    return len(chunk.tokens) == 1
