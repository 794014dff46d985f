"""compressed-tensors in config.json, as LLM Compressor writes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....core.errors import CorruptModelError, UnsupportedModelError
from .fp8 import Block, parse_block

# (format, type): valid bits and strategies.
SUPPORTED: Mapping[tuple[str, str], tuple[tuple[int, ...], tuple[str, ...]]] = {
    ("pack-quantized", "int"): ((4, 8), ("group", "channel")),
    ("int-quantized", "int"): ((8,), ("group", "channel", "tensor")),
    ("naive-quantized", "int"): ((8,), ("group", "channel", "tensor")),
    ("float-quantized", "float"): ((8,), ("tensor", "channel", "block")),
    ("naive-quantized", "float"): ((8,), ("tensor", "channel", "block")),
}


@dataclass(frozen=True, kw_only=True)
class CompressedTensorsScheme:
    """`quantization_config` with quant_method "compressed-tensors"."""

    is_packed: bool
    is_float: bool
    bits: int
    strategy: str
    group_size: int | None  # where the strategy is "group"
    block: Block | None  # where the strategy is "block"
    symmetric: bool
    reordered: bool

    @classmethod
    def parse(cls, raw: Mapping[str, Any], source: str) -> "CompressedTensorsScheme":
        """Parse `quantization_config`; `source` names the file in errors.

        Raises UnsupportedModelError for what is not computed, CorruptModelError for senseless values.
        """
        scheme = _scheme(raw, source)
        weights, format = scheme["weights"], str(scheme.get("format") or raw.get("format"))
        bits, type, strategy = weights.get("num_bits"), str(weights.get("type", "int")), _strategy(weights)
        known_bits, known_strategies = SUPPORTED.get((format, type), ((), ()))
        if bits not in known_bits or strategy not in known_strategies:
            raise UnsupportedModelError(
                f"{source}: compressed-tensors with format {format!r}, {bits!r}-bit {type} weights by {strategy}; "
                f"supported: {'; '.join(_describe(*entry) for entry in SUPPORTED.items())}"
            )
        key = f"{source}: compressed-tensors {strategy} size"
        return cls(
            is_packed=format == "pack-quantized",
            is_float=type == "float",
            bits=bits,
            strategy=strategy,
            group_size=_group_size(weights, key) if strategy == "group" else None,
            block=parse_block(weights.get("block_structure"), key) if strategy == "block" else None,
            symmetric=bool(weights.get("symmetric", True)),
            reordered=weights.get("actorder") in (True, "group", "dynamic"),
        )


def _scheme(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The one group of `config_groups`, which has weights; to which layers it applies, their tensors show."""
    groups = raw.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise CorruptModelError(f"{source}: compressed-tensors config_groups = {groups!r}: expected a group of layers")
    for key in ("sparsity_config", "transform_config"):
        if raw.get(key):
            raise UnsupportedModelError(f"{source}: compressed-tensors with {key}; supported: quantized weights alone")
    if len(groups) > 1:
        raise UnsupportedModelError(
            f"{source}: compressed-tensors with {len(groups)} config_groups ({', '.join(groups)}); supported: one"
        )
    scheme = next(iter(groups.values()))
    if not isinstance(scheme, dict) or not isinstance(scheme.get("weights"), dict):
        raise UnsupportedModelError(
            f"{source}: compressed-tensors config_groups = {groups!r}; supported: one that describes weights"
        )
    return scheme


def _strategy(weights: Mapping[str, Any]) -> str:
    """As the library takes it where it is not given: https://github.com/vllm-project/compressed-tensors, quant_args."""
    strategy = weights.get("strategy")
    if strategy is None:
        size = weights.get("group_size")
        return "tensor" if size is None else "channel" if size == -1 else "group"
    return str(strategy)


def _group_size(weights: Mapping[str, Any], key: str) -> int:
    size = weights.get("group_size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise CorruptModelError(f"{key} = {size!r}: expected a positive integer")
    return size


def _describe(kind: tuple[str, str], valid: tuple[tuple[int, ...], tuple[str, ...]]) -> str:
    (format, type), (bits, strategies) = kind, valid
    return f"{format}, {' or '.join(map(str, bits))}-bit {type} by {', '.join(strategies)}"
