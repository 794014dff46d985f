"""AWQ in config.json, as AutoAWQ and transformers write it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....core.errors import CorruptModelError, UnsupportedModelError

BITS = 4


@dataclass(frozen=True)
class AwqScheme:
    """`quantization_config` with quant_method "awq"."""

    group_size: int  # -1: one group for all inputs

    @classmethod
    def parse(cls, raw: Mapping[str, Any], source: str) -> "AwqScheme":
        """Parse `quantization_config`; `source` names the file in errors.

        Raises UnsupportedModelError for what is not computed, CorruptModelError for senseless values.
        """
        bits, version = raw.get("bits", raw.get("w_bit", BITS)), str(raw.get("version", "gemm")).lower()
        if bits != BITS or version != "gemm":
            raise UnsupportedModelError(f"{source}: AWQ with {bits} bits, version {version!r}; supported: 4 bits, gemm")
        group_size = raw.get("group_size", raw.get("q_group_size", 128))
        if not isinstance(group_size, int) or group_size == 0 or group_size < -1:
            raise CorruptModelError(f"{source}: AWQ group_size = {group_size!r}: expected a positive integer or -1")
        return cls(group_size)
