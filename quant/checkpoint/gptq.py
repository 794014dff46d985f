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

import torch

from .format import StoredTensors
from .integers import assemble, check_groups, count_words, groups_in_order, unpack
from .quantized import GroupQuantized
from .schemes.gptq import GptqScheme


class GptqFormat:
    """Reads layers of a GPTQ checkpoint."""

    def __init__(self, scheme: GptqScheme) -> None:
        self._scheme = scheme

    def holds(self, weights: StoredTensors, prefix: str) -> bool:
        """Whether the layer `prefix` is quantized; lm_head, for one, usually is not."""
        return f"{prefix}.qweight" in weights

    def read(self, weights: StoredTensors, prefix: str, outputs: int, inputs: int) -> GroupQuantized | torch.Tensor:
        """The weight [outputs, inputs] of the layer `prefix`, dense float32 where its groups differ in size.

        Raises CorruptModelError.
        """
        size = inputs if self._scheme.group_size == -1 else self._scheme.group_size
        groups = -(-inputs // size)
        words = weights.stored(f"{prefix}.qweight", count_words(inputs, self._scheme.bits), outputs, dtype=torch.int32)
        zeros = weights.stored(f"{prefix}.qzeros", groups, count_words(outputs, self._scheme.bits), dtype=torch.int32)
        scales = weights.stored(f"{prefix}.scales", groups, outputs).float().t().contiguous()
        group_of = groups_in_order(inputs, size)
        if self._scheme.desc_act or f"{prefix}.g_idx" in weights:
            group_of = check_groups(weights.stored(f"{prefix}.g_idx", inputs), groups, f"{prefix}.g_idx")
        return assemble(
            unpack(words.t(), self._scheme.bits, inputs),
            scales,
            unpack(zeros, self._scheme.bits, outputs).t().float() + self._scheme.zero_shift,
            group_of,
            self._scheme.bits,
        )
