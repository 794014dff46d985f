"""Which quantized format a model directory is in: the table of `quant_method`s that the native engine reads."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ...core.errors import UnsupportedModelError
from .awq import AwqFormat
from .compressed_tensors import CompressedTensorsFormat
from .fp8 import Fp8Format
from .gguf_blocks import GgufFormat
from .gptq import GptqFormat
from .quantized import GroupQuantized

if TYPE_CHECKING:
    from .weights import Weights


class Format(Protocol):
    """How one kind of quantized checkpoint stores linear layers."""

    def holds(self, weights: "Weights", prefix: str) -> bool:
        """Whether the layer `prefix`, such as "model.layers.0.mlp.up_proj", is stored quantized."""

    def read(self, weights: "Weights", prefix: str, outputs: int, inputs: int) -> GroupQuantized | torch.Tensor:
        """The layer's weight, dense (float) where its format has no integers. Raises CorruptModelError."""


# The keys are those of core.spec.NativeQuantization.
FORMATS: Mapping[str, Callable[[Mapping[str, Any], str], Format]] = {
    "awq": AwqFormat.parse,
    "gptq": GptqFormat.parse,
    "fp8": Fp8Format.parse,
    "compressed-tensors": CompressedTensorsFormat.parse,
    "gguf": GgufFormat.parse,
}


def parse_format(config: Mapping[str, Any], source: str) -> Format | None:
    """The format that config.json's `quantization_config` describes; None where there is none.

    Raises UnsupportedModelError, CorruptModelError; `source` names the file in them.
    """
    raw = config.get("quantization_config")
    if not raw:
        return None
    method = str(raw.get("quant_method")) if isinstance(raw, dict) else str(raw)
    if not isinstance(raw, dict) or method not in FORMATS:
        raise UnsupportedModelError(
            f"{source}: weights quantized with {method}; supported are {', '.join(FORMATS)}, and unquantized weights "
            "in bfloat16, float16 or float32"
        )
    return FORMATS[method](raw, source)
