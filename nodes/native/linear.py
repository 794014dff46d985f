"""y = x W^T + b, with the fastest kernel that the device has for the dtype. The one place that chooses."""

import platform
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ...quant.checkpoint.quantized import GroupQuantized


class Linear:
    """A dense layer with weight [out, in]: F.linear."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]"""
        return F.linear(x, self._weight, self._bias)


class PackedLinear(Linear):
    """The same with oneDNN, which lays the weight out for its kernels once and not at every call."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(torch.ops.mkldnn._reorder_linear_weight(weight, None), bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y


def make_linear(
    weights: Sequence[torch.Tensor | GroupQuantized],
    biases: Sequence[torch.Tensor],
    dtype: torch.dtype,
    device: torch.device,
) -> Linear:
    """One layer that computes those of `weights` side by side: outputs are concatenated. No biases: none."""
    dense = [w.dequantize().to(dtype) if isinstance(w, GroupQuantized) else w for w in weights]
    weight = (dense[0] if len(dense) == 1 else torch.cat(dense)).to(device)
    bias = torch.cat(list(biases)).to(device) if biases else None
    return PackedLinear(weight, bias) if _packs(weight.dtype, device) else Linear(weight, bias)


def native_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32 (emulated bfloat16 is several times slower)."""
    if device.type == "cuda":
        return torch.bfloat16
    if platform.machine() in ("x86_64", "AMD64"):
        # oneDNN says yes to any AVX512, but converts at every use without these.
        hardware = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        hardware = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if hardware else torch.float32


def _packs(dtype: torch.dtype, device: torch.device) -> bool:
    if device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True
