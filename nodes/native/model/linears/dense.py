"""y = x W^T + b over a dense weight, with the fastest matrix product that the device has for its dtype."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

Linear = Callable[[torch.Tensor], torch.Tensor]  # [n, in] -> [n, out]


class Dense:
    """A weight [out, in] multiplied by F.linear."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]"""
        return F.linear(x, self._weight, self._bias)


class PackedDense:
    """A weight [out, in] in the layout of oneDNN's kernels, made once and not at every call."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = torch.ops.mkldnn._reorder_linear_weight(weight, None), bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]"""
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y


def make_dense(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    """Make a layer on the device of `weight`, which the layer keeps in a layout of its own where that is faster."""
    return PackedDense(weight, bias) if _packs(weight.dtype, weight.device) else Dense(weight, bias)


def _packs(dtype: torch.dtype, device: torch.device) -> bool:
    if device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True
