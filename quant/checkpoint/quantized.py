"""Weights as small integers with a scale and an offset per group: what AWQ, GPTQ and their like all come down to."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

NO_INPUT = -1  # of columns that fill a group


@dataclass(frozen=True, kw_only=True)
class GroupQuantized:
    """A weight [out, in]: w[o, i] = codes[o, i] * scales[o, i // group_size] + offsets[o, i // group_size].

    A zero point z, as the files have it, is the offset -z * scale.
    """

    codes: torch.Tensor  # uint8 [out, in], each below 2**bits
    scales: torch.Tensor  # float32 [out, in / group_size]
    offsets: torch.Tensor  # float32 [out, in / group_size]
    bits: int  # 4 or 8
    # int64 [in]: column j multiplies input order[j], or none where that is NO_INPUT. None: input j
    order: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs) of the codes, those of columns without an input included."""
        outputs, inputs = self.codes.shape
        return outputs, inputs

    @property
    def group_size(self) -> int:
        """Inputs that share a scale and an offset."""
        return self.codes.shape[1] // self.scales.shape[1]

    def dequantize(self) -> torch.Tensor:
        """The dense weight, float32 [out, in]: columns in the inputs' order, those without an input left out."""
        groups = self.codes.view(*self.scales.shape, self.group_size).float()
        dense = torch.addcmul(self.offsets.unsqueeze(-1), groups, self.scales.unsqueeze(-1)).reshape(self.shape)
        if self.order is None:
            return dense
        used = self.order != NO_INPUT
        if used.all():
            return torch.empty_like(dense).index_copy_(1, self.order, dense)
        dense = dense[:, used]
        return torch.empty_like(dense).index_copy_(1, self.order[used], dense)


def concatenate(parts: Sequence[GroupQuantized]) -> GroupQuantized | None:
    """One weight that computes the outputs of all `parts`; None if they are grouped or ordered differently."""
    first = parts[0]
    if any((part.bits, part.group_size) != (first.bits, first.group_size) for part in parts):
        return None
    if any(not _same(part.order, first.order) for part in parts):
        return None
    return GroupQuantized(
        codes=torch.cat([part.codes for part in parts]),
        scales=torch.cat([part.scales for part in parts]),
        offsets=torch.cat([part.offsets for part in parts]),
        bits=first.bits,
        order=first.order,
    )


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)
