"""Grammars' masks on logits: tokens that may not come get minus infinity."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache

import numpy as np
import torch
from torch import Tensor

from .request import Request

# By byte of a mask, what its eight bits add to logits, lowest first: float32 [256, 8].
_ADDED = np.where((np.arange(256)[:, None] >> np.arange(8)) & 1, np.float32(0), np.float32(-np.inf))


def prepare(requests: Sequence[Request]) -> None:
    """Compute the masks of the tokens that a step is about to give, while a GPU or other processes compute it.

    A matcher that fails does so again when its token is drawn, which ends its request.
    """
    for request in requests:
        if request.params.grammar is not None and not request.failed:
            with suppress(Exception):
                request.matcher.fill()


def has_masks(requests: Sequence[Request]) -> bool:
    """Whether any of the requests has a grammar."""
    return any(request.params.grammar is not None for request in requests)


def masked(logits: Tensor, requests: Sequence[Request]) -> Tensor:
    """`logits` [len(requests), vocab] in which only tokens are left that the requests' grammars allow.

    Rows without a grammar stay as they are. On a CPU `logits` itself is changed. Raises MatcherError.
    """
    rows = [row for row, request in enumerate(requests) if request.params.grammar is not None]
    if not rows:
        return logits
    masks = [np.frombuffer(requests[row].matcher.fill(), dtype=np.uint8) for row in rows]
    if logits.device.type != "cpu":
        return _masked_on_device(logits, rows, ~np.stack(masks))
    # Some 0.3 ms for eight rows, whatever the masks are: a choice for each token takes up to five times as long, as the
    # CPU cannot foresee it. PyTorch's threads wait for each other, which takes longer than the work.
    values = logits.numpy()
    for row, mask in zip(rows, masks, strict=True):
        added = _ADDED.take(mask, axis=0).reshape(-1)[: values.shape[1]]
        values[row, : len(added)] += added
        values[row, len(added) :] = -np.inf  # rows of the embedding that no token has
    return logits


def _masked_on_device(
    logits: Tensor, rows: Sequence[int], forbidden: np.ndarray[tuple[int, int], np.dtype[np.uint8]]
) -> Tensor:
    """The bits go to the device, and are unpacked there."""
    places = torch.from_numpy(forbidden).to(logits.device, non_blocking=True).int()
    bits = _bits_of_bytes(logits.device)[places].view(len(rows), -1)
    vocab = logits.shape[-1]
    bits = torch.nn.functional.pad(bits, (0, max(vocab - bits.shape[-1], 0)), value=True)[:, :vocab]
    if len(rows) == len(logits):
        return logits.masked_fill(bits, -torch.inf)
    logits = logits.clone()
    logits[rows] = logits[rows].masked_fill(bits, -torch.inf)
    return logits


@cache
def _bits_of_bytes(device: torch.device) -> Tensor:
    """The eight bits of each byte, lowest first: bool [256, 8]."""
    return (torch.arange(256, device=device)[:, None] >> torch.arange(8, device=device)) & 1 == 1
