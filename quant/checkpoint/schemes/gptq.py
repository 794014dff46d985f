"""GPTQ in config.json, as AutoGPTQ and GPTQModel write it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....core.errors import CorruptModelError, UnsupportedModelError

BITS = (4, 8)
# What a stored zero point lacks, by checkpoint_format.
ZERO_SHIFT = {"gptq": 1, "gptq_v2": 0}


@dataclass(frozen=True, kw_only=True)
class GptqScheme:
    """`quantization_config` with quant_method "gptq"."""

    bits: int
    group_size: int  # -1: one group for all inputs
    zero_shift: int
    desc_act: bool

    @classmethod
    def parse(cls, raw: Mapping[str, Any], source: str) -> "GptqScheme":
        """Parse `quantization_config`; `source` names the file in errors.

        Raises UnsupportedModelError for what is not computed, CorruptModelError for senseless values.
        """
        bits, version = raw.get("bits"), raw.get("checkpoint_format") or raw.get("format") or "gptq"
        if bits not in BITS or version not in ZERO_SHIFT or raw.get("pack_dtype", "int32") != "int32":
            raise UnsupportedModelError(
                f"{source}: GPTQ with bits = {bits!r}, checkpoint_format = {version!r}, pack_dtype = "
                f"{raw.get('pack_dtype', 'int32')!r}; supported: 4 or 8 bits, {' or '.join(ZERO_SHIFT)}, int32"
            )
        group_size = raw.get("group_size", 128)
        if isinstance(group_size, bool) or not isinstance(group_size, int) or group_size == 0 or group_size < -1:
            raise CorruptModelError(f"{source}: GPTQ group_size = {group_size!r}: expected a positive integer or -1")
        _check_rules(raw, source, {"bits": bits, "group_size": group_size})
        return cls(bits=bits, group_size=group_size, zero_shift=ZERO_SHIFT[version], desc_act=bool(raw.get("desc_act")))


def _check_rules(raw: Mapping[str, Any], source: str, common: Mapping[str, int]) -> None:
    """`dynamic` has rules for layers by regular expression; one that begins with "-:" leaves layers unquantized."""
    rules = raw.get("dynamic") or {}
    if not isinstance(rules, dict):
        raise CorruptModelError(f"{source}: GPTQ dynamic = {rules!r}: expected rules by regular expression")
    for pattern, rule in rules.items():
        for key, value in common.items():
            if isinstance(rule, dict) and not pattern.startswith("-:") and rule.get(key, value) != value:
                raise UnsupportedModelError(
                    f"{source}: GPTQ rule {pattern!r} has {key} = {rule[key]!r}; supported: {value!r} as for the rest"
                )
