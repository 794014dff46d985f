"""Hidden states of a step's rows, behind the final norm, summed by chunk: what embeddings are made of."""

from collections.abc import Sequence

import torch

from ....core.errors import EngineError


def split(wanted: torch.Tensor, lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows for logits, and those to be pooled: the last ones, as `lengths` say. Other sequence ranks have none."""
    first = len(wanted) - sum(lengths) if len(wanted) else 0
    return wanted[:first], wanted[first:]


def without_head(wanted: torch.Tensor) -> torch.Tensor:
    """The logits of a model without lm_head: none. Raises EngineError where some are wanted."""
    if len(wanted):
        raise EngineError("the model has no lm_head: it gives embeddings, and no logits")
    return wanted.float()


def pool(states: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor | None:
    """float32 [len(lengths), hidden_size]: sums of `states` [sum of lengths, hidden_size], so many rows for each.

    None where there are none: nothing is to be pooled, or another sequence rank has the rows.
    """
    if not len(states):
        return None
    if max(lengths) == 1:
        return states.float()
    counts = torch.tensor(lengths, device=states.device)
    return torch.segment_reduce(states.float(), "sum", lengths=counts, axis=0)
