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
    converted: str | None = None  # what is to be said of layers that could not keep their blocks, if there are any

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
        return cls(types, _converted(raw.get("converted"), len(types), source))


def _converted(found: Any, kept: int, source: str) -> str | None:
    """What converting some layers costs, in one line."""
    if found is None:
        return None
    try:
        layers, types = int(found["layers"]), ", ".join(found["types"])
        before, after = (int(found[name]) / 1e6 for name in ("bytes_in_file", "bytes"))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptModelError(f"{source}: GGUF converted = {found!r}: expected layers, types and bytes") from error
    return (
        f"{kept} of {kept + layers} linear layers keep the file's blocks; {layers} ({types}) have no kernel and are "
        f"16 bits wide: {after:.0f} MB instead of {before:.0f}, which every token reads"
    )
