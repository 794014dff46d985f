"""Which quantized format a model directory is in: the table of `quant_method`s that the native engine reads.

What config.json says is parsed here into a scheme, without torch, so that a plan or a command line can ask for it.
How the tensors are laid out and read stands in the formats' modules, see `formats`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ...core.errors import UnsupportedModelError
from .schemes.awq import AwqScheme
from .schemes.compressed_tensors import CompressedTensorsScheme
from .schemes.fp8 import Fp8Scheme
from .schemes.gguf import GgufScheme
from .schemes.gptq import GptqScheme

Scheme = AwqScheme | GptqScheme | Fp8Scheme | CompressedTensorsScheme | GgufScheme

# The keys are those of Quantization in nodes/native/options.py.
SCHEMES: Mapping[str, Callable[[Mapping[str, Any], str], Scheme]] = {
    "awq": AwqScheme.parse,
    "gptq": GptqScheme.parse,
    "fp8": Fp8Scheme.parse,
    "compressed-tensors": CompressedTensorsScheme.parse,
    "gguf": GgufScheme.parse,
}


def parse_scheme(config: Mapping[str, Any], source: str) -> Scheme | None:
    """The scheme that config.json's `quantization_config` describes; None where there is none.

    Raises UnsupportedModelError, CorruptModelError; `source` names the file in them.
    """
    raw = config.get("quantization_config")
    if not raw:
        return None
    method = str(raw.get("quant_method")) if isinstance(raw, dict) else str(raw)
    if not isinstance(raw, dict) or method not in SCHEMES:
        raise UnsupportedModelError(
            f"{source}: weights quantized with {method}; supported are {', '.join(SCHEMES)}, and unquantized weights "
            "in bfloat16, float16 or float32"
        )
    return SCHEMES[method](raw, source)
