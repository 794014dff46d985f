"""The one place that chooses how a linear layer is computed: by kind of weight, device, dtype and number of rows.

Few rows (decoding a few sequences) are bound by the bytes of the weight, many (prefill, large batches) by
multiplications: a 4-bit weight is therefore kept twice where memory allows, packed for a kernel that reads it as it is,
and dense for a matrix product in the compute dtype. Both have the same weights: the dense ones are unpacked from the
packed ones, so that an answer does not depend on how many are computed beside it, up to rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from .....quant.checkpoint.quantized import GroupQuantized, concatenate
from . import ipex
from .combined import ByRows, Reordered, SideBySide
from .dense import Linear, make_dense
from .int4_cpu import Int4Cpu, Int4CpuUnpacked, Int4CpuWeight, Scratch
from .int8_cpu import Int8Cpu


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """Which kernels of the table a model uses, and the scratch memory that they share."""

    exact: bool = False  # quantized weights are made dense at load, in the compute dtype, as the checkpoint has them
    keep_dense: bool = False  # on CPUs: keep the dense copy of a 4-bit weight, else unpack it for each use by many rows
    int8_head: bool = False  # a dense lm_head has an 8-bit copy for few rows
    scratch: Scratch = field(default_factory=Scratch)


@dataclass(frozen=True)
class _Pair:
    few: Linear
    many: Linear


# Makes the two layers of a 4-bit weight; None if the kernel has no form for it.
_Int4 = Callable[[GroupQuantized, torch.Tensor | None, torch.dtype, torch.device, Kernels], _Pair | None]


def _int4_cpu(
    weight: GroupQuantized, bias: torch.Tensor | None, dtype: torch.dtype, device: torch.device, kernels: Kernels
) -> _Pair | None:
    if not Int4CpuWeight.fits(weight):
        return None
    packed = Int4CpuWeight(weight, kernels.scratch)
    many = make_dense(packed.dense(dtype), bias) if kernels.keep_dense else Int4CpuUnpacked(packed, bias)
    return _Pair(Int4Cpu(packed, bias), many)


def _int4_ipex(
    weight: GroupQuantized, bias: torch.Tensor | None, dtype: torch.dtype, device: torch.device, kernels: Kernels
) -> _Pair | None:
    if not (ipex.available() and ipex.available_for(weight)):
        return None
    few = ipex.IpexInt4Linear(weight, bias)  # keeps the scales as they are, and so does the dense copy
    in_order = replace(weight, order=None)
    return _Pair(few, make_dense(in_order.dequantize().to(dtype), bias) if kernels.keep_dense else few)


def _int4_triton(
    weight: GroupQuantized, bias: torch.Tensor | None, dtype: torch.dtype, device: torch.device, kernels: Kernels
) -> _Pair | None:
    from .int4_triton import Int4Triton, Int4TritonUnpacked, Int4TritonWeight

    if not Int4TritonWeight.fits(weight):
        return None
    packed = Int4TritonWeight(weight, device)
    return _Pair(Int4Triton(packed, bias), Int4TritonUnpacked(packed, bias))


@dataclass(frozen=True)
class Rule:
    """A kernel for few rows: up to `kept` of them if a dense copy is there for more, up to `unpacked` if not."""

    device: str
    dtype: torch.dtype
    make: _Int4
    kept: int
    unpacked: int

    def fits(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether the rule is for layers of `dtype` on `device`."""
        return (self.device, self.dtype) == (device.type, dtype)


# What is not here is dense: 8-bit groups, groups of other than a multiple of 32, float16 on CPUs, float32 on GPUs.
# Milliseconds of 4096 x 4096 at group 64 on two Zen 4 cores with AVX512 and bfloat16, weights read from memory.
# The first that has a form for the weight counts.
INT4_RULES = (
    # In .venv-legacy on Intel's CPUs with AVX512-FP16. Not measured: the limits are those of PyTorch's own kernel.
    Rule("cpu", torch.bfloat16, _int4_ipex, kept=4, unpacked=64),
    # The kernel takes 4 rows at a time: 0.8 at 4 rows and 1.6 at 5, against 1.1 for the dense product at both. On
    # Sapphire Rapids (AMX) it is the same: faster at 4 rows, even at 8. Unpacking takes 7, as long as 64 rows gain.
    Rule("cpu", torch.bfloat16, _int4_cpu, kept=4, unpacked=64),
    # Without bfloat16 instructions the dense weight has 8 times the bytes, and its product half the speed.
    Rule("cpu", torch.float32, _int4_cpu, kept=12, unpacked=64),
    # On an H100 up to 16 rows take as long as cuBLAS over bfloat16 (0.016 for 4096 x 4096, 0.076 against 0.082 for
    # 28672 x 4096), 64 rows 1.2 to 1.5 times that, and unpacking before cuBLAS 1.6 to 2.4 times. Even at 128.
    Rule("cuda", torch.bfloat16, _int4_triton, kept=64, unpacked=64),
    Rule("cuda", torch.float16, _int4_triton, kept=64, unpacked=64),
)
# The kernel for 8 bits takes time by the row: with AMX, 49152 x 576 takes 1.0 ms at one row and 3.3 at eight, against
# 1.4 and 1.2 in bfloat16.
INT8_HEAD_ROWS = 1


def make_linear(
    weights: Sequence[torch.Tensor | GroupQuantized],
    biases: Sequence[torch.Tensor],
    dtype: torch.dtype,
    device: torch.device,
    kernels: Kernels,
) -> Linear:
    """Make one layer that computes `weights` side by side: outputs are concatenated. `biases` may be empty.

    Dense weights and biases are of `dtype`.
    """
    if not kernels.exact and any(isinstance(weight, GroupQuantized) for weight in weights):
        merged = _merge(weights)
        if merged is None:
            alone = [biases[i : i + 1] for i in range(len(weights))]
            return SideBySide(
                [make_linear([w], b, dtype, device, kernels) for w, b in zip(weights, alone, strict=True)]
            )
        layer = _make_int4(merged, _cat(biases, device), dtype, device, kernels)
        if layer is not None:
            return layer
    dense = [w.dequantize().to(dtype) if isinstance(w, GroupQuantized) else w for w in weights]
    return make_dense((dense[0] if len(dense) == 1 else torch.cat(dense)).to(device), _cat(biases, device))


def make_head(weight: torch.Tensor, device: torch.device, kernels: Kernels) -> Linear:
    """Make the layer of a dense lm_head [vocab_size, hidden_size]."""
    dense = make_dense(weight.to(device), None)
    if kernels.int8_head and Int8Cpu.fits(weight):
        return ByRows(Int8Cpu(weight), INT8_HEAD_ROWS, dense)
    return dense


def _merge(weights: Sequence[torch.Tensor | GroupQuantized]) -> GroupQuantized | None:
    quantized = [weight for weight in weights if isinstance(weight, GroupQuantized)]
    return concatenate(quantized) if len(quantized) == len(weights) else None


def _make_int4(
    weight: GroupQuantized, bias: torch.Tensor | None, dtype: torch.dtype, device: torch.device, kernels: Kernels
) -> Linear | None:
    """The layer of the first rule that has one."""
    for rule in INT4_RULES:
        pair = rule.make(weight, bias, dtype, device, kernels) if rule.fits(dtype, device) else None
        if pair is not None:
            layer = ByRows(pair.few, rule.kept if kernels.keep_dense else rule.unpacked, pair.many)
            return layer if weight.order is None else Reordered(layer, weight.order.to(device))
    return None


def _cat(biases: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor | None:
    return torch.cat(list(biases)).to(device) if biases else None
