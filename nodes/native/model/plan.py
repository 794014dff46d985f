"""The plan of attention of one step: index tensors that batch.py makes and attention.py reads."""

from dataclasses import dataclass

import torch

from .paged import BlockGroup, PagedGroup


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decode tokens of sequences of about one length, attended to together."""

    rows: slice
    cache_rows: torch.Tensor  # for KVCache.gather
    length: int  # tokens to keep of what was gathered
    mask: torch.Tensor | None  # [sequences, 1, 1, length], added to the scores


@dataclass(frozen=True, slots=True)
class Prefill:
    """A prompt's chunk. Without `cache_rows` it attends to itself only, causally."""

    rows: slice
    cache_rows: torch.Tensor | None = None
    length: int = 0  # tokens to keep of what was gathered
    mask: torch.Tensor | None = None  # [tokens, length], added to the scores


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What the layers of one window attend to; all rows in order."""

    decodes: tuple[DecodeGroup | PagedGroup | BlockGroup, ...]
    prefills: tuple[Prefill, ...]
