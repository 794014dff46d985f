"""The formats of the compressed-tensors library: what LLM Compressor writes and vLLM, SGLang and transformers read.

A weight [out, in] of b bits, signed integers, in groups of inputs is stored as

    pack-quantized   weight_packed      int32 [out, in * b / 32]      integers + 2^(b-1), the first in the lowest bits
                     weight_zero_point  int32 [out * b / 32, groups]  packed the same way; only if not symmetric
                     weight_shape       int64 [2]
                     weight_g_idx       int32 [in]                    every input's group; only with actorder "group"
    int-quantized    weight             int8 [out, in]
                     weight_zero_point  int8 [out, groups]            only if not symmetric
    float-quantized  weight             float8_e4m3fn [out, in]
    all of them      weight_scale       w = (integer - zero_point) * weight_scale

with scales [out, groups] (strategy "channel" is one group of all inputs), [1] (strategy "tensor") or, in floats, one a
block. "naive-quantized" is int-quantized or float-quantized, by its type.

Integers become 4- or 8-bit groups, floats dense weights. What the file says of activations (W8A8, W4A8) is ignored:
they stay in the dtype that the engine computes in. Source: https://github.com/vllm-project/compressed-tensors.
"""

import torch

from ...core.errors import CorruptModelError
from .format import StoredTensors
from .fp8 import read_scaled
from .integers import assemble, check_groups, count_words, groups_in_order, unpack
from .quantized import GroupQuantized
from .schemes.compressed_tensors import CompressedTensorsScheme


class CompressedTensorsFormat:
    """Reads layers of a compressed-tensors checkpoint."""

    def __init__(self, scheme: CompressedTensorsScheme) -> None:
        self._scheme = scheme

    def holds(self, weights: StoredTensors, prefix: str) -> bool:
        """Whether the layer `prefix` is quantized; those on the `ignore` list have no scale."""
        return f"{prefix}.weight_packed" in weights or f"{prefix}.weight_scale" in weights

    def read(self, weights: StoredTensors, prefix: str, outputs: int, inputs: int) -> GroupQuantized | torch.Tensor:
        """The weight [outputs, inputs] of the layer `prefix`, dense float32 if of floats or if groups differ in size.

        Raises CorruptModelError.
        """
        if self._scheme.is_float:
            return read_scaled(weights, prefix, "weight_scale", outputs, inputs, self._scheme.block)
        size = self._scheme.group_size or inputs
        groups = -(-inputs // size)
        codes = (self._packed if self._scheme.is_packed else self._plain)(weights, prefix, outputs, inputs)
        return assemble(
            codes,
            self._scales(weights, f"{prefix}.weight_scale", outputs, groups),
            self._zeros(weights, f"{prefix}.weight_zero_point", outputs, groups),
            self._group_of(weights, f"{prefix}.weight_g_idx", inputs, size),
            self._scheme.bits,
        )

    @property
    def _middle(self) -> int:
        """What makes a signed integer a code."""
        return 1 << (self._scheme.bits - 1)

    def _packed(self, weights: StoredTensors, prefix: str, outputs: int, inputs: int) -> torch.Tensor:
        name = f"{prefix}.weight_shape"
        shape = tuple(weights.stored(name, 2).tolist())
        if shape != (outputs, inputs):
            raise CorruptModelError(f"tensor {name} says {shape}, config.json says {(outputs, inputs)}")
        words = weights.stored(
            f"{prefix}.weight_packed", outputs, count_words(inputs, self._scheme.bits), dtype=torch.int32
        )
        return unpack(words, self._scheme.bits, inputs)

    def _plain(self, weights: StoredTensors, prefix: str, outputs: int, inputs: int) -> torch.Tensor:
        # In two's complement, flipping the highest bit adds 128.
        return weights.stored(f"{prefix}.weight", outputs, inputs, dtype=torch.int8).view(torch.uint8) ^ 0x80

    def _scales(self, weights: StoredTensors, name: str, outputs: int, groups: int) -> torch.Tensor:
        if self._scheme.strategy == "tensor":
            return weights.stored(name, 1).float().expand(outputs, 1).contiguous()
        return weights.stored(name, outputs, groups).float()

    def _zeros(self, weights: StoredTensors, name: str, outputs: int, groups: int) -> torch.Tensor:
        """float32 [outputs, groups], as codes."""
        if self._scheme.symmetric:
            return torch.full((outputs, groups), float(self._middle))
        if self._scheme.is_packed:
            words = weights.stored(name, count_words(outputs, self._scheme.bits), groups, dtype=torch.int32)
            return unpack(words.t(), self._scheme.bits, outputs).t().float()
        shape = (1,) if self._scheme.strategy == "tensor" else (outputs, groups)
        zeros = weights.stored(name, *shape, dtype=torch.int8).float() + self._middle
        return zeros.expand(outputs, groups)

    def _group_of(self, weights: StoredTensors, name: str, inputs: int, size: int) -> torch.Tensor:
        if not self._scheme.reordered:
            return groups_in_order(inputs, size)
        return check_groups(weights.stored(name, inputs), -(-inputs // size), name)
