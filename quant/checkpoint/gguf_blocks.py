"""A GGUF file's own quantized weights in a model directory of ours: what `quant/gguf` writes and only this reads.

    blocks  uint8 [out, in / 32 * bytes a block]   rows in Hugging Face's order, in blocks of gguf/layouts.py

config.json: `"quantization_config": {"quant_method": "gguf", "types": {"model.layers.0.mlp.up_proj": "Q4_1", ...}}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ...core.errors import CorruptModelError, UnsupportedModelError
from ..gguf.layouts import BLOCK, LAYOUTS
from .quantized import GroupQuantized

if TYPE_CHECKING:
    from .weights import Weights


@dataclass(frozen=True)
class GgufFormat:
    """`quantization_config` with quant_method "gguf"."""

    types: Mapping[str, str]  # GGUF type by layer

    @classmethod
    def parse(cls, raw: Mapping[str, Any], source: str) -> "GgufFormat":
        """Raises UnsupportedModelError, CorruptModelError."""
        types = raw.get("types")
        if not isinstance(types, dict):
            raise CorruptModelError(f"{source}: GGUF types = {types!r}: expected a type for every quantized layer")
        unknown = sorted({str(type) for type in types.values()} - set(LAYOUTS))
        if unknown:
            raise UnsupportedModelError(
                f"{source}: GGUF blocks of type {', '.join(unknown)}; supported: {', '.join(LAYOUTS)}"
            )
        return cls(types)

    def holds(self, weights: "Weights", prefix: str) -> bool:
        """Whether the layer `prefix` is stored in blocks."""
        return prefix in self.types

    def read(self, weights: "Weights", prefix: str, outputs: int, inputs: int) -> GroupQuantized:
        """The layer `prefix`. Raises CorruptModelError."""
        layout = LAYOUTS[self.types[prefix]]
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
