"""Integers in 32-bit words, and inputs in groups: what GPTQ and compressed-tensors have in common."""

import torch

from ...core.errors import CorruptModelError
from .quantized import GroupQuantized


def count_words(count: int, bits: int) -> int:
    """How many 32-bit words hold `count` codes."""
    return -(-count * bits // 32)


def unpack(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """uint8 codes [n, count] of int32 words [n, count_words(count, bits)]: the first code is in a word's lowest bits.

    `bits` is 4 or 8.
    """
    # Flat first: bytes are seen only where neighbours are neighbours, and a transposed column is not.
    octets = words.flatten().view(torch.uint8).view(len(words), -1)
    if bits == 4:
        octets = torch.stack((octets & 0xF, octets >> 4), dim=-1).flatten(1)
    return octets[:, :count]


def groups_in_order(inputs: int, size: int) -> torch.Tensor:
    """int64 [inputs]: the group of every input where each `size` neighbours make one; the last may be shorter."""
    return torch.arange(inputs) // size


def check_groups(group_of: torch.Tensor, groups: int, name: str) -> torch.Tensor:
    """Tensor `name` of the file, which says every input's group, as int64. Raises CorruptModelError."""
    low, high = int(group_of.min()), int(group_of.max())
    if low < 0 or high >= groups:
        raise CorruptModelError(f"tensor {name} has values from {low} to {high}, expected 0 to {groups - 1}")
    return group_of.long()


def assemble(
    codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, group_of: torch.Tensor, bits: int
) -> GroupQuantized | torch.Tensor:
    """The weight (codes - zeros) * scales, input j with the scale and zero of group group_of[j].

    Codes are uint8 [out, in], scales and zeros float32 [out, groups], group_of int64 [in]. Where groups differ in size
    no kernel could use them: then the result is dense, float32 [out, in].
    """
    inputs, groups = codes.shape[1], scales.shape[1]
    offsets = (-zeros * scales).contiguous()
    members = torch.bincount(group_of, minlength=groups)
    if (members * groups != inputs).any():
        return codes * scales[:, group_of] + offsets[:, group_of]
    order = None
    if (group_of.diff() < 0).any():
        order = group_of.argsort(stable=True)
        codes = codes[:, order]
    return GroupQuantized(codes=codes.contiguous(), scales=scales, offsets=offsets, bits=bits, order=order)
