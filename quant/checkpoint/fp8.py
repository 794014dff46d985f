"""FP8 checkpoints: weights in float8_e4m3fn with scales, as DeepSeek, Qwen and AutoFP8 publish them.

    weight            float8_e4m3fn [out, in]
    weight_scale_inv  float [out / b0, in / b1], rounded up   one scale a block of weight_block_size = [b0, b1], or
    weight_scale      float [], [1], [out] or [out, 1]        one scale for all or one an output: w = weight * scale

Despite its name weight_scale_inv is multiplied by. Sources: DeepSeek-V3's README_WEIGHTS.md, vLLM's FP8 documentation.

No CPU has kernels for this: a weight becomes dense when it is loaded. What the file says of activations (input_scale,
activation_scheme) and of the KV cache (k_scale, v_scale) is ignored: those stay in the dtype that the engine computes
in, which is closer to the original model than 8 bits.
"""

import torch

from ...core.errors import CorruptModelError
from .format import StoredTensors
from .schemes.fp8 import Block, Fp8Scheme

_SCALES = ("weight_scale_inv", "weight_scale")


class Fp8Format:
    """Reads layers of an FP8 checkpoint."""

    def __init__(self, scheme: Fp8Scheme) -> None:
        self._block = scheme.block

    def holds(self, weights: StoredTensors, prefix: str) -> bool:
        """Whether the layer `prefix` is quantized."""
        return any(f"{prefix}.{scale}" in weights for scale in _SCALES)

    def read(self, weights: StoredTensors, prefix: str, outputs: int, inputs: int) -> torch.Tensor:
        """float32 [outputs, inputs]. Raises CorruptModelError."""
        scale = next(name for name in _SCALES if f"{prefix}.{name}" in weights)
        return read_scaled(weights, prefix, scale, outputs, inputs, self._block)


def read_scaled(
    weights: StoredTensors, prefix: str, scale_name: str, outputs: int, inputs: int, block: Block | None
) -> torch.Tensor:
    """float32 [outputs, inputs]: the float8 weight of layer `prefix` times its scales. Raises CorruptModelError."""
    values = weights.stored(f"{prefix}.weight", outputs, inputs, dtype=torch.float8_e4m3fn).float()
    name = f"{prefix}.{scale_name}"
    if block is None:
        return values.mul_(_output_scales(weights, name, outputs))
    scales = weights.stored(name, -(-outputs // block[0]), -(-inputs // block[1])).float()
    rows = scales.repeat_interleave(block[0], 0)[:outputs]
    return values.mul_(rows.repeat_interleave(block[1], 1)[:, :inputs])


def _output_scales(weights: StoredTensors, name: str, outputs: int) -> torch.Tensor:
    """float32 [1, 1] or [outputs, 1]."""
    shape = weights.shape(name)
    if shape not in ((), (1,), (1, 1), (outputs,), (outputs, 1)):
        raise CorruptModelError(f"tensor {name} has shape {shape}, expected (), (1,), ({outputs},) or ({outputs}, 1)")
    return weights.stored(name, *shape).float().view(-1, 1)
