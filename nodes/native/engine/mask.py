"""Grammars' masks on logits: tokens that may not come get minus infinity."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache

import torch
from torch import Tensor

from .request import Request


def prepare(requests: Sequence[Request]) -> None:
    """Compute the masks of the tokens that a step is about to give, while a GPU or other processes compute it.

    A matcher that fails does so again when its token is drawn, which ends its request.
    """
    for request in requests:
        if request.params.grammar is not None and not request.failed:
            with suppress(Exception):
                request.matcher.fill()


def masked(logits: Tensor, requests: Sequence[Request]) -> Tensor:
    """A copy of `logits` [len(requests), vocab] in which only tokens are left that the requests' grammars allow.

    Rows without a grammar stay as they are; without any, nothing is copied. Raises MatcherError.
    """
    rows = [row for row, request in enumerate(requests) if request.params.grammar is not None]
    if not rows:
        return logits
    forbidden = _forbidden([requests[row].matcher.fill() for row in rows], logits)
    if len(rows) == len(requests):
        return logits.masked_fill(forbidden, -torch.inf)
    logits = logits.clone()
    for row, one in zip(rows, forbidden, strict=True):
        logits[row].masked_fill_(one, -torch.inf)
    return logits


def _forbidden(masks: Sequence[bytes], logits: Tensor) -> Tensor:
    """Masks of bits as booleans [len(masks), vocab] that say what may not come."""
    packed = torch.frombuffer(bytearray(b"".join(masks)), dtype=torch.uint8).view(len(masks), -1)
    packed = packed.to(logits.device, non_blocking=True)
    bits = _table(logits.device)[packed.int()].view(len(masks), -1)
    vocab = logits.shape[-1]
    if bits.shape[-1] < vocab:  # rows of the embedding that no token has
        bits = torch.nn.functional.pad(bits, (0, vocab - bits.shape[-1]), value=True)
    return bits[:, :vocab]


@cache
def _table(device: torch.device) -> Tensor:
    """The eight bits of each byte, lowest first, inverted: bool [256, 8]."""
    bytes_ = torch.arange(256, device=device)[:, None]
    return (bytes_ >> torch.arange(8, device=device)) & 1 == 0
