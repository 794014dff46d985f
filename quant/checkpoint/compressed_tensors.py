"""The formats of the compressed-tensors library: what LLM Compressor writes and vLLM, SGLang and transformers read.

A weight [out, in] of b bits, signed integers, in groups of inputs is stored as

    pack-quantized   weight_packed      int32 [out, in * b / 32]      integers + 2^(b-1), the first in the lowest bits
                     weight_zero_point  int32 [out * b / 32, groups]  packed the same way; only if not symmetric
                     weight_shape       int64 [2]
                     weight_g_idx       int32 [in]                    every input's group; only with actorder "group"
    int-quantized    weight             int8 [out, in]
                     weight_zero_point  int8 [out, groups]            only if not symmetric
    float-quantized  weight             float8_e4m3fn [out, in]
    all of them      weight_scale       w = (integer - zero_point) * weight_scale

with scales [out, groups] (strategy "channel" is one group of all inputs), [1] (strategy "tensor") or, in floats, one a
block. "naive-quantized" is int-quantized or float-quantized, by its type.

Integers become 4- or 8-bit groups, floats dense weights. What the file says of activations (W8A8, W4A8) is ignored:
they stay in the dtype that the engine computes in. Source: https://github.com/vllm-project/compressed-tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ...core.errors import CorruptModelError, UnsupportedModelError
from .fp8 import Block, parse_block, read_scaled
from .integers import assemble, check_groups, count_words, groups_in_order, unpack
from .quantized import GroupQuantized

if TYPE_CHECKING:
    from .weights import Weights

# (format, type): valid bits and strategies.
SUPPORTED: Mapping[tuple[str, str], tuple[tuple[int, ...], tuple[str, ...]]] = {
    ("pack-quantized", "int"): ((4, 8), ("group", "channel")),
    ("int-quantized", "int"): ((8,), ("group", "channel", "tensor")),
    ("naive-quantized", "int"): ((8,), ("group", "channel", "tensor")),
    ("float-quantized", "float"): ((8,), ("tensor", "channel", "block")),
    ("naive-quantized", "float"): ((8,), ("tensor", "channel", "block")),
}


@dataclass(frozen=True, kw_only=True)
class CompressedTensorsFormat:
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
    def parse(cls, raw: Mapping[str, Any], source: str) -> "CompressedTensorsFormat":
        """Raises UnsupportedModelError, CorruptModelError."""
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

    def holds(self, weights: "Weights", prefix: str) -> bool:
        """Whether the layer `prefix` is quantized; those on the `ignore` list have no scale."""
        return f"{prefix}.weight_packed" in weights or f"{prefix}.weight_scale" in weights

    def read(self, weights: "Weights", prefix: str, outputs: int, inputs: int) -> GroupQuantized | torch.Tensor:
        """The layer `prefix`, dense if of floats or if its groups differ in size. Raises CorruptModelError."""
        if self.is_float:
            return read_scaled(weights, prefix, "weight_scale", outputs, inputs, self.block)
        size = self.group_size or inputs
        groups = -(-inputs // size)
        codes = (self._packed if self.is_packed else self._plain)(weights, prefix, outputs, inputs)
        return assemble(
            codes,
            self._scales(weights, f"{prefix}.weight_scale", outputs, groups),
            self._zeros(weights, f"{prefix}.weight_zero_point", outputs, groups),
            self._group_of(weights, f"{prefix}.weight_g_idx", inputs, size),
            self.bits,
        )

    @property
    def _middle(self) -> int:
        """What makes a signed integer a code."""
        return 1 << (self.bits - 1)

    def _packed(self, weights: "Weights", prefix: str, outputs: int, inputs: int) -> torch.Tensor:
        name = f"{prefix}.weight_shape"
        shape = tuple(weights.stored(name, 2).tolist())
        if shape != (outputs, inputs):
            raise CorruptModelError(f"tensor {name} says {shape}, config.json says {(outputs, inputs)}")
        words = weights.stored(f"{prefix}.weight_packed", outputs, count_words(inputs, self.bits), dtype=torch.int32)
        return unpack(words, self.bits, inputs)

    def _plain(self, weights: "Weights", prefix: str, outputs: int, inputs: int) -> torch.Tensor:
        # In two's complement, flipping the highest bit adds 128.
        return weights.stored(f"{prefix}.weight", outputs, inputs, dtype=torch.int8).view(torch.uint8) ^ 0x80

    def _scales(self, weights: "Weights", name: str, outputs: int, groups: int) -> torch.Tensor:
        if self.strategy == "tensor":
            return weights.stored(name, 1).float().expand(outputs, 1).contiguous()
        return weights.stored(name, outputs, groups).float()

    def _zeros(self, weights: "Weights", name: str, outputs: int, groups: int) -> torch.Tensor:
        """float32 [outputs, groups], as codes."""
        if self.symmetric:
            return torch.full((outputs, groups), float(self._middle))
        if self.is_packed:
            words = weights.stored(name, count_words(outputs, self.bits), groups, dtype=torch.int32)
            return unpack(words.t(), self.bits, outputs).t().float()
        shape = (1,) if self.strategy == "tensor" else (outputs, groups)
        zeros = weights.stored(name, *shape, dtype=torch.int8).float() + self._middle
        return zeros.expand(outputs, groups)

    def _group_of(self, weights: "Weights", name: str, inputs: int, size: int) -> torch.Tensor:
        if not self.reordered:
            return groups_in_order(inputs, size)
        return check_groups(weights.stored(name, inputs), -(-inputs // size), name)


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
