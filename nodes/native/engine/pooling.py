"""From the pooled hidden states of a request's chunks to its embedding."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from ....core.errors import EngineError
from ....quant.checkpoint.embedding import Pooling
from .request import Embedding, Request
from .scheduler import Slice


@dataclass(frozen=True, slots=True)
class PooledChunk:
    """A chunk that gives a row of pooled hidden states."""

    request: Request
    start: int  # its first token

    @classmethod
    def of(cls, slice: Slice) -> Self | None:
        """What the slice, before it is computed, gives; None if no hidden states of it are wanted."""
        request, start = slice.request, slice.request.computed
        wanted = {Pooling.LAST: slice.reaches_end, Pooling.CLS: start == 0, Pooling.MEAN: True, None: False}
        return cls(request, start) if wanted[request.pooling] else None


def add(chunk: PooledChunk, row: torch.Tensor) -> None:
    """Add a chunk's row [hidden_size] to those of its request, which begin anew after a preemption."""
    request, before = chunk.request, chunk.request.pooled if chunk.start else None
    request.pooled = row.clone() if before is None else before + row


def embedding_of(request: Request) -> Embedding:
    """The embedding of a request whose chunks are all there. Raises EngineError if it is not finite."""
    assert request.pooled is not None, "a chunk has given it"
    states, request.pooled = request.pooled, None
    if request.pooling is Pooling.MEAN:
        states = states / request.prompt_length
    vector = states.cpu().numpy().astype("<f4", copy=False)
    if not np.isfinite(vector).all():
        raise EngineError("the hidden states are not finite: weights are damaged, or the dtype is too narrow")
    return Embedding(request, vector.tobytes())
