"""FP8 in config.json, as DeepSeek, Qwen and AutoFP8 write it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....core.errors import CorruptModelError, UnsupportedModelError

Block = tuple[int, int]  # outputs and inputs that share a scale


@dataclass(frozen=True)
class Fp8Scheme:
    """`quantization_config` with quant_method "fp8"."""

    block: Block | None

    @classmethod
    def parse(cls, raw: Mapping[str, Any], source: str) -> "Fp8Scheme":
        """Parse `quantization_config`; `source` names the file in errors.

        Raises UnsupportedModelError for what is not computed, CorruptModelError for senseless values.
        """
        if raw.get("fmt", "e4m3") != "e4m3":
            raise UnsupportedModelError(f"{source}: FP8 with fmt = {raw['fmt']!r}; supported: 'e4m3'")
        block = raw.get("weight_block_size")
        return cls(None if block is None else parse_block(block, f"{source}: FP8 weight_block_size"))


def parse_block(value: object, key: str) -> Block:
    """[outputs, inputs] of config.json. Raises CorruptModelError that names `key`."""
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(n, int) and n > 0 for n in value):
        raise CorruptModelError(f"{key} = {value!r}: expected two positive integers")
    return value[0], value[1]
