"""A GGUF file's own quantized weights in a model directory of ours: what `quant/gguf` writes and only this reads.

    blocks  uint8 [out, in / 32 * bytes a block]   rows in Hugging Face's order, in blocks of gguf/layouts.py

config.json: `"quantization_config": {"quant_method": "gguf", "types": {"model.layers.0.mlp.up_proj": "Q4_1", ...}}`.
"""

import torch

from ...core.errors import CorruptModelError
from ..gguf.layouts import BLOCK, LAYOUTS
from .format import StoredTensors
from .quantized import GroupQuantized
from .schemes.gguf import GgufScheme


class GgufFormat:
    """Reads layers that are stored in a GGUF file's blocks."""

    def __init__(self, scheme: GgufScheme) -> None:
        self._types = scheme.types

    def holds(self, weights: StoredTensors, prefix: str) -> bool:
        """Whether the layer `prefix` is stored in blocks."""
        return prefix in self._types

    def read(self, weights: StoredTensors, prefix: str, outputs: int, inputs: int) -> GroupQuantized:
        """The weight [outputs, inputs] of the layer `prefix`. Raises CorruptModelError."""
        layout = LAYOUTS[self._types[prefix]]
        if inputs % BLOCK:
            raise CorruptModelError(f"layer {prefix} has {inputs} inputs: no multiple of the {BLOCK} in a block")
        groups = inputs // BLOCK
        raw = weights.stored(f"{prefix}.blocks", outputs, groups * layout.nbytes, dtype=torch.uint8)
        blocks = raw.view(outputs, groups, layout.nbytes)
        floats = blocks[..., : 2 * layout.floats].contiguous().view(torch.float16).float()
        codes, zero = _codes(blocks[..., 2 * layout.floats :], layout.bits, layout.zero)
        scales = floats[..., 0].contiguous()
        offsets = floats[..., 1].contiguous() if layout.floats == 2 else -zero * scales
        return GroupQuantized(codes=codes.view(outputs, inputs), scales=scales, offsets=offsets, bits=layout.bits)


def _codes(octets: torch.Tensor, bits: int, zero: int) -> tuple[torch.Tensor, int]:
    """uint8 codes [out, groups, 32], and the code that stands for 0."""
    if bits == 4:
        return torch.cat((octets & 0xF, octets >> 4), dim=-1), zero
    return octets ^ 0x80, zero + 0x80  # in two's complement, flipping the highest bit adds 128
