"""Runs the steps of a model, or of one rank's part of it, in this process: a decoder and its KV cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ....core.machine.memory import give_back_freed
from ....quant.checkpoint.config import ModelConfig
from .batch import make_batch
from .decoder import Decoder
from .fused.decoder import FusedDecoder
from .kv_cache import KVCache
from .paged import supports
from .parallel.sequence import SequenceGroup
from .parallel.sequence_batch import make_sequence_batch
from .step import Chunk, OneAtATime, StepOutput


class Decodes(Protocol):
    """What computes a model's steps."""

    def forward(self, chunks: Sequence[Chunk], x: torch.Tensor | None = None) -> StepOutput:
        """Compute one step and write the chunks' keys and values into their blocks.

        A pipeline stage that is not the first takes as x what the one before has returned. Of sequence ranks, only the
        first has logits and pooled hidden states.
        """


class Runner(OneAtATime):
    """A model, or one rank's part of it, whose steps this process computes one after the other."""

    def __init__(self, config: ModelConfig, decoder: Decodes, cache: KVCache, context_length: int) -> None:
        self.config, self.decoder = config, decoder
        self.vocab_size = config.vocab_size
        self.context_length = context_length
        self.block_size = cache.block_size
        self.num_blocks = cache.num_blocks
        self.cache = cache
        self.communication_s = 0.0
        self._replaced = False

    @property
    def compiled(self) -> bool:
        """Whether steps are computed by the compiled library."""
        return isinstance(self.decoder, FusedDecoder)

    @property
    def hidden_dtype(self) -> torch.dtype:
        """The dtype of the hidden states that one pipeline stage sends to the next."""
        return torch.float32 if self.compiled else self.cache.format.dtype

    @torch.inference_mode()
    def compute(self, chunks: Sequence[Chunk], x: torch.Tensor | None = None) -> StepOutput:
        """Compute one step, as `Decodes.forward` describes, without recording gradients."""
        if self._replaced:  # the step before was the last one that the old decoder computed
            self._replaced = False
            give_back_freed()
        return self.decoder.forward(chunks, x)

    def replace_decoder(self, decoder: Decodes) -> None:
        """Compute all steps that have not begun with `decoder`, which must share the KV cache; from any thread."""
        self.decoder = decoder
        self._replaced = True

    def close(self) -> None:
        """Do nothing: no other process computes with this one."""


@dataclass(frozen=True)
class PlainDecoder:
    """Computes steps with PyTorch's operations: any model, dtype and device."""

    decoder: Decoder
    cache: KVCache
    config: ModelConfig
    sequence: SequenceGroup | None = None

    def forward(self, chunks: Sequence[Chunk], x: torch.Tensor | None = None) -> StepOutput:
        """Compute one step, as `Decodes.forward` describes."""
        if self.sequence is not None:
            windows, heads = set(self.config.windows), self.config.num_heads
            shared = make_sequence_batch(chunks, self.cache, windows, self.sequence, heads)
            return self.decoder.forward(shared, self.cache, x)
        paged_heads = self.config.num_heads if supports(self.cache.format, self.cache.device) else None
        batch = make_batch(chunks, self.cache, set(self.config.windows), paged_heads)
        return self.decoder.forward(batch, self.cache, x)
