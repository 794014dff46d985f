"""The AWQ checkpoint format ("gemm"): what AutoAWQ, SGLang, vLLM and transformers read and write.

A weight [out, in] in groups of g inputs is stored as

    qweight  int32 [in, out / 8]      eight 4-bit codes in a word
    qzeros   int32 [in / g, out / 8]  the groups' zero points, packed the same way
    scales   [in / g, out]            w = (code - zero) * scale

Bits 4i to 4i + 3 of word c belong to output 8c + ORDER[i].
"""

import torch

from .format import StoredTensors
from .quantized import GroupQuantized
from .schemes.awq import BITS, AwqScheme

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PER_WORD = 32 // BITS


class AwqFormat:
    """Reads layers of an AWQ checkpoint."""

    def __init__(self, scheme: AwqScheme) -> None:
        self._group_size = scheme.group_size

    def holds(self, weights: StoredTensors, prefix: str) -> bool:
        """Whether the layer `prefix` is quantized; lm_head, for one, usually is not."""
        return f"{prefix}.qweight" in weights

    def read(self, weights: StoredTensors, prefix: str, outputs: int, inputs: int) -> GroupQuantized:
        """The weight [outputs, inputs] of the layer `prefix`. Raises CorruptModelError."""
        groups = 1 if self._group_size == -1 else inputs // self._group_size
        codes = weights.stored(f"{prefix}.qweight", inputs, outputs // PER_WORD)
        zeros = weights.stored(f"{prefix}.qzeros", groups, outputs // PER_WORD)
        scales = weights.stored(f"{prefix}.scales", groups, outputs).float().t().contiguous()
        return GroupQuantized(
            codes=unpack(codes).t().contiguous(), scales=scales, offsets=-unpack(zeros).t().float() * scales, bits=BITS
        )


def pack(codes: torch.Tensor) -> torch.Tensor:
    """int32 [n, m / 8] words of uint8 codes [n, m] below 16; m must be a multiple of 8."""
    rows, columns = codes.shape
    nibbles = codes.view(rows, columns // PER_WORD, PER_WORD)[:, :, list(ORDER)]
    # Two nibbles a byte, bytes in the machine's order: int32 arithmetic is never needed.
    return (nibbles[..., 0::2] | nibbles[..., 1::2] << BITS).contiguous().view(rows, -1).view(torch.int32)


def unpack(words: torch.Tensor) -> torch.Tensor:
    """uint8 codes [n, m] of int32 words [n, m / 8]."""
    rows = words.shape[0]
    octets = words.contiguous().view(torch.uint8).view(rows, -1, PER_WORD // 2)
    codes = torch.empty(rows, octets.shape[1], PER_WORD, dtype=torch.uint8, device=words.device)
    codes[:, :, list(ORDER[0::2])] = octets & 0xF
    codes[:, :, list(ORDER[1::2])] = octets >> BITS
    return codes.view(rows, -1)
