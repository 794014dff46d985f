"""How well a model predicts a text, computed step by step over the paged KV cache as when it serves."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ...core.errors import EngineError
from .model.step import Chunk, Model


@dataclass(frozen=True, slots=True)
class Perplexity:
    """The perplexity of a text: exp of the mean negative log-likelihood of its tokens."""

    losses: tuple[float, ...]  # -log p of each scored token given those before it in its window; natural logarithm

    @property
    def mean(self) -> float:
        """Mean negative log-likelihood of a token, natural logarithm."""
        return statistics.fmean(self.losses)

    @property
    def standard_error(self) -> float:
        """Standard error of `mean`, as if the tokens were independent; about that of the perplexity, relative to it."""
        return statistics.stdev(self.losses) / math.sqrt(len(self.losses))

    @property
    def value(self) -> float:
        """The perplexity."""
        return math.exp(self.mean)


def perplexity(
    model: Model, tokens: Sequence[int], *, window: int, chunk: int, bos_id: int | None = None
) -> Perplexity:
    """Perplexity of `tokens` over the windows of `cut_windows`; the first token of each is given, not scored.

    Logits are float32. `chunk` tokens go through the model in a step: with few, linear layers use the kernels that
    they use for decoding, and attention reads what the KV cache has kept; with a whole window it is prefill.
    Raises EngineError if not even one window can be cut, one is longer than the model's context or KV cache, or the
    model computes NaN.
    """
    most = min(model.context_length, model.num_blocks * model.block_size)
    if not 2 <= window <= most:
        raise EngineError(f"a window of {window} tokens: expected 2 to {most}, the room that the model has")
    windows = cut_windows(tokens, window, bos_id)
    if not windows:
        raise EngineError(f"the text has {len(tokens)} tokens, less than one window of {window}")
    return Perplexity(tuple(loss for each in windows for loss in _losses(model, each, chunk)))


def cut_windows(tokens: Sequence[int], window: int, bos_id: int | None) -> list[list[int]]:
    """Pieces of `window` tokens that do not overlap, each with `bos_id` (if any) as its first; the rest is left out.

    Each is what transformers' tokenizer makes of a text of its own. Figures of papers are mostly of windows that are
    cut out of one long sequence, so that only the first of them begins with BOS.
    """
    head = [] if bos_id is None else [bos_id]
    size = window - len(head)
    return [[*head, *tokens[start : start + size]] for start in range(0, len(tokens) - size + 1, size)]


def _losses(model: Model, window: Sequence[int], chunk: int) -> Iterator[float]:
    blocks = range(-(-len(window) // model.block_size))
    for start in range(0, len(window) - 1, chunk):
        piece = window[start : min(start + chunk, len(window) - 1)]
        logits = model.forward([Chunk(piece, start, blocks, num_logits=len(piece), prompt=True)])
        targets = torch.tensor(window[start + 1 : start + 1 + len(piece)], device=logits.device)
        losses = F.cross_entropy(logits, targets, reduction="none")
        if not losses.isfinite().all():
            raise EngineError("the model's logits are not finite: its weights are damaged, or its dtype is too narrow")
        yield from losses.tolist()
