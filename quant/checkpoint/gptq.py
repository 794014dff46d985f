"""The GPTQ checkpoint format: what AutoGPTQ, GPTQModel, SGLang, vLLM and transformers read and write.

A weight [out, in] in groups of inputs is stored as (for 4 bits; a word holds four codes of 8)

    qweight  int32 [in / 8, out]      eight codes in a word, of neighbouring inputs
    qzeros   int32 [groups, out / 8]  the groups' zero points, of neighbouring outputs
    scales   [groups, out]            w = (code - zero) * scale
    g_idx    int32 [in]               every input's group; may be missing where groups are in order

The first code is in the lowest bits. In version 1 ("gptq") a zero point is stored minus one, in version 2 ("gptq_v2")
as it is. A stored 15 is thus the zero point 16 in version 1, as in AutoGPTQ.

With desc_act, inputs were quantized in the order of their importance, and a group's inputs lie anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ...core.errors import CorruptModelError, UnsupportedModelError
from .integers import assemble, check_groups, count_words, groups_in_order, unpack
from .quantized import GroupQuantized

if TYPE_CHECKING:
    from .weights import Weights

BITS = (4, 8)
# What a stored zero point lacks, by checkpoint_format.
ZERO_SHIFT = {"gptq": 1, "gptq_v2": 0}


@dataclass(frozen=True, kw_only=True)
class GptqFormat:
    """`quantization_config` with quant_method "gptq"."""

    bits: int
    group_size: int  # -1: one group for all inputs
    zero_shift: int
    desc_act: bool

    @classmethod
    def parse(cls, raw: Mapping[str, Any], source: str) -> "GptqFormat":
        """Raises UnsupportedModelError, CorruptModelError."""
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

    def holds(self, weights: "Weights", prefix: str) -> bool:
        """Whether the layer `prefix` is quantized; lm_head, for one, usually is not."""
        return f"{prefix}.qweight" in weights

    def read(self, weights: "Weights", prefix: str, outputs: int, inputs: int) -> GroupQuantized | torch.Tensor:
        """The layer `prefix`, dense where its groups differ in size. Raises CorruptModelError."""
        size = inputs if self.group_size == -1 else self.group_size
        groups = -(-inputs // size)
        words = weights.stored(f"{prefix}.qweight", count_words(inputs, self.bits), outputs, dtype=torch.int32)
        zeros = weights.stored(f"{prefix}.qzeros", groups, count_words(outputs, self.bits), dtype=torch.int32)
        scales = weights.stored(f"{prefix}.scales", groups, outputs).float().t().contiguous()
        group_of = groups_in_order(inputs, size)
        if self.desc_act or f"{prefix}.g_idx" in weights:
            group_of = check_groups(weights.stored(f"{prefix}.g_idx", inputs), groups, f"{prefix}.g_idx")
        return assemble(
            unpack(words.t(), self.bits, inputs),
            scales,
            unpack(zeros, self.bits, outputs).t().float() + self.zero_shift,
            group_of,
            self.bits,
        )


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
