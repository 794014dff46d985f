"""What the scheduler hands to the model in one step, and what the model promises to do with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ....quant.checkpoint.embedding import Pooling


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens of one sequence to compute in one step: a piece of its prompt (prefill) or its newest token (decode)."""

    tokens: Sequence[int]
    start: int  # position of tokens[0]: that many tokens of the sequence are in the KV cache already
    blocks: Sequence[int]  # the sequence's KV blocks in order; they have room for start + len(tokens) tokens
    num_logits: int  # of that many last tokens; 0 for a prompt piece that is not the last, 1 to sample the next token
    # To the bit, a prompt's tokens are computed as if all came at once, and others as if they came one by one, however
    # many come in a step. PyTorch's operations promise neither.
    prompt: bool = False
    # Wants a row of pooled hidden states: its last token's, its first token's, or (MEAN) the sum of all its tokens'.
    pooling: Pooling | None = None


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step gives, valid until the next one is computed."""

    # float32 logits [sum of the chunks' num_logits, vocab_size], in the order of the chunks and their tokens. Of a
    # pipeline stage that is not the last: hidden states [tokens of all chunks, hidden_size] for the next.
    rows: torch.Tensor
    pooled: torch.Tensor | None = None  # float32 [chunks with `pooling`, hidden_size], in their order; None: no such


class Model(Protocol):
    """A decoder with its paged KV cache. Steps are computed in the order in which they begin."""

    vocab_size: int
    context_length: int
    block_size: int
    num_blocks: int

    @property
    def communication_s(self) -> float:
        """Seconds of all steps that went to other processes, and to waiting for them."""

    @property
    def compiled(self) -> bool:
        """Whether steps are computed by the compiled library."""

    @property
    def depth(self) -> int:
        """Steps that may have begun and not yet finished: 1, or as many as a pipeline has stages."""

    def begin(self, chunks: Sequence[Chunk]) -> None:
        """Begin to compute a step, whose result `finish` returns. No sequence may be in two unfinished steps."""

    def finish(self) -> StepOutput:
        """Wait for the oldest unfinished step; returns its logits and pooled hidden states."""

    def forward(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        """Compute one mixed step and write the chunks' keys and values into their blocks.

        Returns float32 logits [sum of the chunks' num_logits, vocab_size], in the chunks' and their tokens' order,
        valid until the next call.
        No two chunks are of one sequence; full blocks may be shared and are never written again.
        """

    def close(self) -> None:
        """End the processes that compute with this one. No step may follow."""


class OneAtATime:
    """The `begin` and `finish` of a model whose steps are computed one after the other."""

    depth = 1

    def begin(self, chunks: Sequence[Chunk]) -> None:
        """Compute a step and keep its result for `finish`."""
        self._output = self.compute(chunks)

    def finish(self) -> StepOutput:
        """The result of the step that has begun."""
        return self._output

    def forward(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        """Compute one step, as `Model.forward` describes."""
        return self.compute(chunks).rows

    def compute(self, chunks: Sequence[Chunk]) -> StepOutput:
        """Compute one step."""
        raise NotImplementedError


def cumulative(counts: Sequence[int]) -> list[int]:
    """The sums of the first one, two, and so on."""
    ends, total = [], 0
    for count in counts:
        total += count
        ends.append(total)
    return ends
