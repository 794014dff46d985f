"""The table of quantized formats: what reads the layers that a scheme of config.json describes."""

from typing import assert_never

from .awq import AwqFormat
from .compressed_tensors import CompressedTensorsFormat
from .format import CheckpointFormat
from .fp8 import Fp8Format
from .gguf_blocks import GgufFormat
from .gptq import GptqFormat
from .quantization import Scheme
from .schemes.awq import AwqScheme
from .schemes.compressed_tensors import CompressedTensorsScheme
from .schemes.fp8 import Fp8Scheme
from .schemes.gguf import GgufScheme
from .schemes.gptq import GptqScheme


def make_format(scheme: Scheme) -> CheckpointFormat:
    """The format that reads layers quantized as `scheme` says."""
    match scheme:
        case AwqScheme():
            return AwqFormat(scheme)
        case GptqScheme():
            return GptqFormat(scheme)
        case Fp8Scheme():
            return Fp8Format(scheme)
        case CompressedTensorsScheme():
            return CompressedTensorsFormat(scheme)
        case GgufScheme():
            return GgufFormat(scheme)
    assert_never(scheme)
