"""4-bit weights on a CPU: PyTorch's own kernel for few rows, and the same weights unpacked for many.

The kernel (`aten::_weight_int4pack_mm_for_cpu`) computes w = (code - 8) * scale + zero in float32 from bfloat16 scales
and zeros, over bfloat16 inputs; with any other dtype of x it is a reference loop, 50 times slower. It has groups of 32,
64, 128 and 256 inputs only, and wants the outputs to be a multiple of 16. Longer groups are split and outputs are
padded with zeros here, so that any group of a multiple of 32 fits.

How codes are packed depends on the CPU (ATen/native/cpu/int4mm_kernel.cpp): always in blocks of 64, 32 or 16 outputs,
each [in, block / 2] bytes, but with the low nibbles either first (`planes`) or in turn with the high ones. `layout`
finds out by packing and reading back, so that the packed codes are the only copy that is kept.
"""

from dataclasses import dataclass
from functools import cache

import torch

from .....quant.checkpoint.quantized import GroupQuantized

GROUPS = (256, 128, 64, 32)
# Weights packed or unpacked at once: their scratch memory stays small, and in the cache, which is a fifth faster.
_AT_ONCE = 4 << 20


@dataclass(frozen=True)
class PackedInt4Layout:
    """The order of 4-bit codes that this CPU's kernel of PyTorch reads."""

    block: int  # outputs that lie together
    planes: bool  # low nibbles are the block's first half; else they are its even outputs

    def unpack(self, packed: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Codes uint8 [blocks, in, block] of `packed` uint8 [blocks, in, block / 2], in the buffer `codes`."""
        blocks, inputs, half = packed.shape
        codes = codes.view(blocks, inputs, self.block)
        in_two = codes.view(blocks, inputs, 2, half) if self.planes else codes.view(blocks, inputs, half, 2)
        halves = in_two.unbind(2 if self.planes else 3)
        torch.bitwise_and(packed, 15, out=halves[0])
        torch.bitwise_right_shift(packed, 4, out=halves[1])
        return codes


@cache
def layout() -> PackedInt4Layout | None:
    """Find the layout of this CPU's kernel; None if this PyTorch packs in a way that is not known here."""
    codes = torch.randint(0, 16, (3 * 64, 6), dtype=torch.int32)
    packed = _pack(codes)
    for found in (PackedInt4Layout(block, planes) for block in (64, 32, 16) for planes in (True, False)):
        unpacked = found.unpack(packed.view(-1, 6, found.block // 2), torch.empty(codes.numel(), dtype=torch.uint8))
        if torch.equal(unpacked.transpose(1, 2).reshape(codes.shape), codes):
            return found
    return None


class Scratch:
    """Buffers for unpacked weights, shared by the layers of a model, which compute one after the other."""

    def __init__(self) -> None:
        self._buffers: dict[torch.dtype, torch.Tensor] = {}

    def take(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """`count` elements that are valid until the next call."""
        buffer = self._buffers.get(dtype)
        if buffer is None or len(buffer) < count:
            buffer = self._buffers[dtype] = torch.empty(count, dtype=dtype)
        return buffer[:count]


class Int4CpuWeight:
    """A weight [out, in] in the kernel's layout; `fits` says which ones there are."""

    def __init__(self, weight: GroupQuantized, scratch: Scratch) -> None:
        found = layout()
        assert found is not None
        self._layout, self._scratch = found, scratch
        self.outputs, self.inputs = weight.shape
        self._padded = -(-self.outputs // found.block) * found.block
        self._step = max(_AT_ONCE // self.inputs // found.block, 1) * found.block  # outputs at once
        self._group = kernel_group(weight.group_size)
        # In parts: the kernel packs int32, eight times the size of what comes out.
        parts = [_pack(_pad(part.int(), found.block)) for part in torch.split(weight.codes, self._step)]
        self._packed = torch.cat([part.view(-1) for part in parts]).view(self._padded, self.inputs // 2)
        zeros = torch.add(weight.offsets, weight.scales, alpha=8)
        groups = torch.stack((weight.scales, zeros), -1).repeat_interleave(weight.group_size // self._group, 1)
        self._scales_zeros = _pad(groups, found.block).transpose(0, 1).bfloat16().contiguous()

    @staticmethod
    def fits(weight: GroupQuantized) -> bool:
        """Whether this CPU's kernel can compute with `weight`."""
        return weight.bits == 4 and weight.group_size % GROUPS[-1] == 0 and layout() is not None

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """x W^T by the int4 kernel: [n, in] -> [n, out] of the same dtype."""
        y: torch.Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            x.to(torch.bfloat16).contiguous(), self._packed, self._group, self._scales_zeros
        )
        return y[:, : self.outputs].to(x.dtype)

    def multiply_unpacked(self, x: torch.Tensor) -> torch.Tensor:
        """x W^T by dense products with parts of the weight, unpacked one after the other: [n, in] -> [n, out]."""
        y = x.new_empty(len(x), self._padded)
        for start in range(0, self._padded, self._step):
            part = self._unpacked(start, x.dtype)
            torch.mm(x, part, out=y[:, start : start + part.shape[1]])
        return y[:, : self.outputs]

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight [out, in]: what `multiply` computes with, rounded to `dtype`."""
        parts = [self._unpacked(start, dtype).t().contiguous() for start in range(0, self._padded, self._step)]
        return torch.cat(parts)[: self.outputs]

    def _unpacked(self, start: int, dtype: torch.dtype) -> torch.Tensor:
        """[in, rows]: outputs `start` and the following, in scratch memory."""
        block = self._layout.block
        stop = min(start + self._step, self._padded)
        count, blocks = (stop - start) * self.inputs, (stop - start) // block
        packed = self._packed[start:stop].view(blocks, self.inputs, block // 2)
        codes = self._layout.unpack(packed, self._scratch.take(count, torch.uint8)).view(torch.int8).sub_(8)
        weight = self._scratch.take(count, dtype).view(self.inputs, stop - start)
        weight.view(self.inputs, blocks, block).copy_(codes.transpose(0, 1))
        groups = weight.view(len(self._scales_zeros), self._group, stop - start)
        scales, zeros = self._scales_zeros[:, start:stop].to(dtype).unsqueeze(1).unbind(-1)
        torch.addcmul(zeros, groups, scales, out=groups)
        return weight


class Int4Cpu:
    """A layer that multiplies by the int4 kernel."""

    def __init__(self, weight: Int4CpuWeight, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]"""
        y = self._weight.multiply(x)
        return y if self._bias is None else y.add_(self._bias)


class Int4CpuUnpacked:
    """A layer that unpacks its weight at every call."""

    def __init__(self, weight: Int4CpuWeight, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]"""
        y = self._weight.multiply_unpacked(x)
        return y if self._bias is None else y.add_(self._bias)


def kernel_group(group_size: int) -> int:
    """The longest of the kernel's groups that divides groups of a multiple of 32."""
    return next(size for size in GROUPS if group_size % size == 0)


def _pack(codes: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    return packed


def _pad(rows: torch.Tensor, multiple: int) -> torch.Tensor:
    """Zeros behind `rows` [n, ...] up to a multiple."""
    missing = -len(rows) % multiple
    return torch.cat((rows, rows.new_zeros(missing, *rows.shape[1:]))) if missing else rows
