"""A dense weight rounded to 8 bits, one scale per output: half the bytes to read where few rows want little more."""

import torch

_STEPS = 127
_ROWS = 4096  # rounded at once, in float32


class Int8Cpu:
    """y = x W^T by `aten::_weight_int8pack_mm`, which is a slow reference loop unless x is bfloat16."""

    def __init__(self, weight: torch.Tensor) -> None:
        """Rounds `weight` [out, in], which must fit, to the nearest of 255 symmetric values."""
        scales = weight.abs().amax(1).float() / _STEPS
        # Rows of zeros, and the scale as the kernel reads it: codes are made for the rounded one.
        self._scales = torch.where(scales > 0, scales, 1.0).bfloat16()
        self._codes = torch.empty(weight.shape, dtype=torch.int8)
        for start in range(0, len(weight), _ROWS):
            part = slice(start, start + _ROWS)
            scaled = weight[part].float().div_(self._scales[part].float().unsqueeze(1))
            self._codes[part] = scaled.round_().clamp_(-_STEPS, _STEPS)

    @staticmethod
    def fits(weight: torch.Tensor) -> bool:
        """The kernel reads 16 to 32 inputs at once, without looking where a row ends."""
        return weight.shape[1] % 64 == 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """bfloat16 [n, in] -> bfloat16 [n, out]"""
        return torch._weight_int8pack_mm(x.contiguous(), self._codes, self._scales)
