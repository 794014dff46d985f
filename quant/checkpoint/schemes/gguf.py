"""GGUF blocks in config.json, as `quant/gguf` writes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....core.errors import CorruptModelError, UnsupportedModelError
from ...gguf.layouts import LAYOUTS


@dataclass(frozen=True)
class GgufScheme:
    """`quantization_config` with quant_method "gguf"."""

    types: Mapping[str, str]  # GGUF type by layer

    @classmethod
    def parse(cls, raw: Mapping[str, Any], source: str) -> "GgufScheme":
        """Parse `quantization_config`; `source` names the file in errors.

        Raises UnsupportedModelError for what is not computed, CorruptModelError for senseless values.
        """
        types = raw.get("types")
        if not isinstance(types, dict):
            raise CorruptModelError(f"{source}: GGUF types = {types!r}: expected a type for every quantized layer")
        unknown = sorted({str(type) for type in types.values()} - set(LAYOUTS))
        if unknown:
            raise UnsupportedModelError(
                f"{source}: GGUF blocks of type {', '.join(unknown)}; supported: {', '.join(LAYOUTS)}"
            )
        return cls(types)
