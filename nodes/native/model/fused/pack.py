"""Weights as kernels/ read them: 16 outputs side by side, for one instruction that multiplies 4 inputs of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .....quant.checkpoint.quantized import GroupQuantized
from .structs import MatrixStruct

_OUTPUTS = 16
GROUPS = (128, 64, 32)
DENSE_BITS = 16
_ROWS = 4096  # rounded to 8 bits in float32, or put into order, at once


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A weight [outputs, inputs], padded with outputs to a multiple of 16. kernels/model.h describes the layouts."""

    codes: torch.Tensor
    affine: torch.Tensor | None
    bias: torch.Tensor | None
    order: torch.Tensor | None
    outputs: int
    inputs: int
    group: int
    bits: int

    @property
    def padded(self) -> int:
        """Number of outputs, padding included."""
        return len(self.codes) * _OUTPUTS

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensors that the weight consists of."""
        return [tensor for tensor in self._pointed_at if tensor is not None]

    @property
    def matrix(self) -> MatrixStruct:
        """Pointers and sizes for the library, valid as long as this object lives."""
        pointers = (None if tensor is None else tensor.data_ptr() for tensor in self._pointed_at)
        return MatrixStruct(*pointers, self.padded, self.inputs, self.group, self.bits)

    @property
    def _pointed_at(self) -> tuple[torch.Tensor | None, ...]:
        """In the library's order."""
        return (self.codes, self.affine, self.bias, self.order)


def fits(weight: GroupQuantized) -> bool:
    """Whether the library can compute with `weight`: 4 or 8 bits, groups of a multiple of 32."""
    return weight.bits in (4, 8) and weight.group_size % GROUPS[-1] == 0


def kernel_group(group_size: int) -> int:
    """The longest of GROUPS that divides `group_size`, a multiple of 32."""
    return next(size for size in GROUPS if group_size % size == 0)


def pack(weight: GroupQuantized, biases: Sequence[torch.Tensor]) -> Packed:
    """Pack a quantized `weight` for which `fits` holds, and biases [outputs] that are joined."""
    outputs, inputs = weight.shape
    group = kernel_group(weight.group_size)
    padded = -(-outputs // _OUTPUTS) * _OUTPUTS
    codes = _padded(weight.codes, padded).view(padded // _OUTPUTS, _OUTPUTS, inputs)
    if weight.bits == 4:  # inputs j and j + 4 of 8 in one byte
        halves = codes.view(padded // _OUTPUTS, _OUTPUTS, inputs // 8, 2, 4)
        codes = halves[:, :, :, 0] | halves[:, :, :, 1] << 4
    else:
        codes = codes.view(padded // _OUTPUTS, _OUTPUTS, inputs // 4, 4)
    codes = codes.transpose(1, 2).contiguous()
    affine = torch.stack((weight.scales, weight.offsets)).repeat_interleave(weight.group_size // group, 2)
    affine = _padded(affine.transpose(0, 1), padded).view(padded // _OUTPUTS, _OUTPUTS, 2, inputs // group)
    affine = affine.permute(0, 3, 2, 1).half().contiguous()
    return Packed(
        codes=codes, affine=affine, bias=_joined(biases, padded),
        order=None if weight.order is None else weight.order.int(),
        outputs=outputs, inputs=inputs, group=group, bits=weight.bits,
    )  # fmt: skip


def pack_dense(weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor]) -> Packed:
    """Pack dense weights [outputs, inputs] side by side as bfloat16. Inputs are a multiple of 32."""
    outputs, inputs = sum(map(len, weights)), weights[0].shape[1]
    padded = -(-outputs // _OUTPUTS) * _OUTPUTS
    pairs = torch.empty(padded // _OUTPUTS, inputs // 2, _OUTPUTS, 2, dtype=torch.bfloat16)
    for start in range(0, padded, _ROWS):  # an embedding is larger than all else: no copy of the whole beside it
        rows = _padded(_rows(weights, start, min(start + _ROWS, outputs)), min(_ROWS, padded - start))
        blocks = slice(start // _OUTPUTS, start // _OUTPUTS + len(rows) // _OUTPUTS)
        pairs[blocks] = rows.view(-1, _OUTPUTS, inputs // 2, 2).transpose(1, 2)
    return Packed(
        codes=pairs, affine=None, bias=_joined(biases, padded), order=None,
        outputs=outputs, inputs=inputs, group=GROUPS[-1], bits=DENSE_BITS,
    )  # fmt: skip


def _rows(weights: Sequence[torch.Tensor], start: int, stop: int) -> torch.Tensor:
    """Rows `start` to `stop` of weights that lie below each other, as bfloat16."""
    found, begin = [], 0
    for weight in weights:
        found.append(weight[max(start - begin, 0) : max(stop - begin, 0)].bfloat16())
        begin += len(weight)
    return torch.cat(found) if len(found) > 1 else found[0]


def _joined(biases: Sequence[torch.Tensor], padded: int) -> torch.Tensor | None:
    return _padded(torch.cat([bias.float() for bias in biases]), padded) if biases else None


def round_to_bytes(weight: torch.Tensor, group: int) -> GroupQuantized:
    """Round a dense weight [out, in] to 8 bits, between the least and the largest of each `group` of inputs.

    Scales and offsets are float16, which codes are made for.
    """
    outputs, inputs = weight.shape
    codes = torch.empty(outputs, inputs // group, group, dtype=torch.uint8)
    scales, offsets = torch.empty(2, outputs, inputs // group)
    for start in range(0, outputs, _ROWS):
        part = slice(start, start + _ROWS)
        groups = weight[part].float().view(-1, inputs // group, group)
        low, high = groups.amin(-1), groups.amax(-1)
        offsets[part] = low.half().float()
        scales[part] = ((high - offsets[part]) / 255).clamp_(min=2.0**-14).half().float()
        steps = (groups - offsets[part].unsqueeze(-1)) / scales[part].unsqueeze(-1)
        codes[part] = steps.round_().clamp_(0, 255).to(torch.uint8)
    return GroupQuantized(codes=codes.view(outputs, inputs), scales=scales, offsets=offsets, bits=8)


def _padded(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Zeros behind `rows` [n, ...] up to `count`."""
    missing = count - len(rows)
    return torch.cat((rows, rows.new_zeros(missing, *rows.shape[1:]))) if missing else rows
