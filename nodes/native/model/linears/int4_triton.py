"""4-bit weights on CUDA: a Triton kernel for few rows, and one that unpacks for cuBLAS.

Codes are stored two a byte in blocks of BLOCK inputs: byte j of a block has input j in its low nibble and input
j + BLOCK / 2 in its high one. A group of a weight is one or more blocks, so any group of a multiple of 32 fits.

Weights are codes * scale + offset with scales and offsets in float32. The kernel multiplies x by the bare codes, which
float16 and bfloat16 hold exactly, and scales the float32 sum of each block.

Imported only where there is CUDA: PyTorch's builds for CPUs come without Triton.
"""

import torch
import triton
import triton.language as tl

from .....quant.checkpoint.quantized import GroupQuantized

BLOCKS = (128, 64, 32)
# The fastest of several tried on an H100. 16 rows are the least that tl.dot multiplies.
_FEWEST_ROWS, _MOST_ROWS, _OUTPUTS = 16, 64, 128  # of a tile
_PROGRAMS = 256  # about two for each multiprocessor; inputs are split over programs to reach it
_UNPACKED_OUTPUTS = 32  # of a tile


class Int4TritonWeight:
    """A weight [out, in] with its codes packed, on a GPU; `fits` says which ones there are."""

    def __init__(self, weight: GroupQuantized, device: torch.device) -> None:
        self.outputs, self.inputs = weight.shape
        self._block = next(size for size in BLOCKS if weight.group_size % size == 0)
        self._repeat = weight.group_size // self._block
        halves = weight.codes.to(device).view(self.outputs, -1, 2, self._block // 2)
        self._packed = (halves[:, :, 0] | halves[:, :, 1] << 4).view(self.outputs, -1)
        # [blocks, out]: neighbours are read together.
        self._scales = weight.scales.to(device).t().contiguous()
        self._offsets = weight.offsets.to(device).t().contiguous()

    @staticmethod
    def fits(weight: GroupQuantized) -> bool:
        """Whether the kernel can compute with `weight`."""
        return bool(weight.bits == 4 and weight.group_size % BLOCKS[-1] == 0)

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """x W^T from the packed codes: float16 or bfloat16 [n, in] -> float32 [n, out]."""
        x, rows, blocks = x.contiguous(), len(x), self.inputs // self._block
        tile_rows = min(max(triton.next_power_of_2(rows), _FEWEST_ROWS), _MOST_ROWS)
        tiles = triton.cdiv(rows, tile_rows), triton.cdiv(self.outputs, _OUTPUTS)
        splits = max(1, min(blocks, _PROGRAMS // (tiles[0] * tiles[1] or 1)))
        # Sums of the splits side by side and not added in place: the order of additions stays the same.
        sums = torch.empty(splits, rows, self.outputs, dtype=torch.float32, device=x.device)
        if rows:
            _multiply[(*tiles, splits)](
                x,
                self._packed,
                self._scales,
                self._offsets,
                sums,
                rows,
                self.outputs,
                self.inputs,
                triton.cdiv(blocks, splits),
                REPEAT=self._repeat,
                BLOCK=self._block,
                ROWS=tile_rows,
                OUTPUTS=_OUTPUTS,
            )
        return sums.sum(0)

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight [out, in] in `dtype`."""
        weight = torch.empty(self.outputs, self.inputs, dtype=dtype, device=self._packed.device)
        _unpack[(self.inputs // self._block, triton.cdiv(self.outputs, _UNPACKED_OUTPUTS))](
            self._packed,
            self._scales,
            self._offsets,
            weight,
            self.outputs,
            self.inputs,
            REPEAT=self._repeat,
            BLOCK=self._block,
            OUTPUTS=_UNPACKED_OUTPUTS,
        )
        return weight


class Int4Triton:
    """A layer that multiplies by the Triton kernel."""

    def __init__(self, weight: Int4TritonWeight, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]"""
        y = self._weight.multiply(x)
        return (y if self._bias is None else y.add_(self._bias)).to(x.dtype)


class Int4TritonUnpacked:
    """A layer that unpacks its weight at every call."""

    def __init__(self, weight: Int4TritonWeight, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]"""
        return torch.nn.functional.linear(x, self._weight.dense(x.dtype), self._bias)


def _multiply_tile(
    x: tl.tensor,
    packed: tl.tensor,
    scales: tl.tensor,
    offsets: tl.tensor,
    sums: tl.tensor,
    rows: int,
    outputs: int,
    inputs: int,
    blocks_a_split: int,
    REPEAT: tl.constexpr,  # blocks of a group
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """A tile [ROWS, OUTPUTS] of one split's sums."""
    half: tl.constexpr = BLOCK // 2
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    place = tl.arange(0, half)
    is_row, is_output = row < rows, output < outputs
    x_tile = x + row[:, None].to(tl.int64) * inputs + place[None, :]
    w_tile = packed + output[None, :].to(tl.int64) * (inputs // 2) + place[:, None]
    first = tl.program_id(2) * blocks_a_split
    total = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
    for block in range(first, tl.minimum(first + blocks_a_split, inputs // BLOCK)):
        low_x = tl.load(x_tile + block * BLOCK, mask=is_row[:, None], other=0.0)
        high_x = tl.load(x_tile + block * BLOCK + half, mask=is_row[:, None], other=0.0)
        codes = tl.load(w_tile + block * half, mask=is_output[None, :], other=0)
        scale = tl.load(scales + (block // REPEAT) * outputs + output, mask=is_output, other=0.0)
        offset = tl.load(offsets + (block // REPEAT) * outputs + output, mask=is_output, other=0.0)
        product = tl.dot(low_x, (codes & 15).to(low_x.dtype))
        product = tl.dot(high_x, (codes >> 4).to(high_x.dtype), product)
        sum_x = tl.sum(low_x.to(tl.float32), 1) + tl.sum(high_x.to(tl.float32), 1)
        total += product * scale[None, :] + sum_x[:, None] * offset[None, :]
    tile = sums + (tl.program_id(2) * rows + row[:, None]).to(tl.int64) * outputs + output[None, :]
    tl.store(tile, total, mask=is_row[:, None] & is_output[None, :])


_multiply = triton.jit(_multiply_tile)


def _unpack_tile(
    packed: tl.tensor,
    scales: tl.tensor,
    offsets: tl.tensor,
    weight: tl.tensor,
    outputs: int,
    inputs: int,
    REPEAT: tl.constexpr,
    BLOCK: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """A tile [OUTPUTS, BLOCK] of the weight."""
    half: tl.constexpr = BLOCK // 2
    block = tl.program_id(0)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    place = tl.arange(0, half)
    is_output = output < outputs
    line = output[:, None].to(tl.int64)
    codes = tl.load(packed + line * (inputs // 2) + block * half + place[None, :], mask=is_output[:, None], other=0)
    scale = tl.load(scales + (block // REPEAT) * outputs + output, mask=is_output, other=0.0)[:, None]
    offset = tl.load(offsets + (block // REPEAT) * outputs + output, mask=is_output, other=0.0)[:, None]
    tile = weight + line * inputs + block * BLOCK + place[None, :]
    tl.store(tile, (codes & 15).to(tl.float32) * scale + offset, mask=is_output[:, None])
    tl.store(tile + half, (codes >> 4).to(tl.float32) * scale + offset, mask=is_output[:, None])


_unpack = triton.jit(_unpack_tile)
