"""4-bit weights with Intel's extension for PyTorch (IPEX 2.8, archived), where the engine runs in .venv-legacy.

IPEX has a kernel only for CPUs with AVX512-FP16: Intel's from Sapphire Rapids on, of AMD's none up to Zen 5. Elsewhere
it computes the same, but by unpacking the whole weight at every call with a dozen ordinary operations (on Zen 4 170 ms
for 4096 x 4096 at one row, where PyTorch's own kernel takes 0.5): `available` says no there.

In bfloat16, and in float32 from some rows on, it multiplies in bfloat16.
"""

import importlib.util
from functools import cache

import torch

from .....quant.checkpoint.awq import pack
from .....quant.checkpoint.quantized import GroupQuantized

_TORCH = "2.8."  # what IPEX 2.8 is compiled for; with any other it does not load
_AWQ, _INT4 = 1, 0  # IPEX's quant_method and dtype
_BITS = 4
_OUTPUTS = 32  # a multiple of it; with any other, IPEX computes something else and does not say so
_WHOLE = 1e-3  # of a zero point: float32 division is far closer


class IpexInt4Linear:
    """A layer that multiplies by IPEX's weight-only quantized linear; `available_for` says which weights it takes.

    As of the other kernels, its inputs are in the order of the weight's columns.
    """

    def __init__(self, weight: GroupQuantized, bias: torch.Tensor | None) -> None:
        from intel_extension_for_pytorch.llm import quantization  # type: ignore[import-not-found]

        outputs, inputs = weight.shape
        zeros = _zeros(weight).round().to(torch.uint8)
        self._linear = quantization.IPEXWeightOnlyQuantizedLinear.from_weight(
            pack(weight.codes.t().contiguous()),
            weight.scales.t().contiguous(),
            pack(zeros.t().contiguous()),
            inputs,
            outputs,
            bias=bias,
            # As its own group size, IPEX does not take the length of a row.
            group_size=-1 if weight.group_size == inputs else weight.group_size,
            quant_method=_AWQ,
            dtype=_INT4,
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out] of the same dtype, bfloat16 or float32"""
        y: torch.Tensor = self._linear(x)
        return y


@cache
def available() -> bool:
    """Whether IPEX is installed, fits this PyTorch, and has a kernel for this CPU."""
    if not torch.__version__.startswith(_TORCH) or importlib.util.find_spec("intel_extension_for_pytorch") is None:
        return False
    import intel_extension_for_pytorch  # type: ignore[import-not-found]

    return bool(intel_extension_for_pytorch._C.isa_has_avx512_fp16_support())


def available_for(weight: GroupQuantized) -> bool:
    """Whether `weight` has the form that IPEX computes: AWQ's, 4 bits with zero points that are whole numbers."""
    zeros = _zeros(weight)
    whole = bool(((zeros - zeros.round()).abs() < _WHOLE).all() and (zeros.round().clamp(0, 15) == zeros.round()).all())
    return weight.bits == _BITS and weight.shape[0] % _OUTPUTS == 0 and whole


def _zeros(weight: GroupQuantized) -> torch.Tensor:
    """The zero points z of offsets -z * scale, float32 [out, groups]; where the scale is 0, any will do."""
    return torch.where(weight.scales == 0, 0.0, -weight.offsets / weight.scales)
