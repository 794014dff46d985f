"""Hashes of a prompt's beginning, by which equal beginnings are recognised.

A prompt's bytes are cut into blocks at fixed offsets: 64 blocks of 256 bytes, then 64 of 512, and so on. So equal
beginnings have equal blocks, and the longest body that the router takes has fewer than 1,000 of them. The hash of a
block is seeded with that of the block before it, so that it stands for all bytes up to the block's end. What is left
after the last whole block is not hashed.

A hash is a positive int64. Its lowest four bits say how large the block is, so that a hash alone says how much of a
cache it stands for.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from struct import Struct

from xxhash import xxh3_64_intdigest

SMALLEST = 256  # bytes of the first blocks
_BLOCKS_OF_A_SIZE = 64
_LEVELS = 16
_BLOCKS = tuple(Struct(f"{SMALLEST << level}s") for level in range(_LEVELS))
_HASH_BITS = 0x7FFFFFFFFFFFFFF0
LEVEL_BITS = 0xF  # of a hash


def block_hashes(prompt: bytes) -> list[int]:
    """The chained hashes of the whole blocks of a prompt, in order."""
    hashes: list[int] = []
    previous, rest = 0, memoryview(prompt)
    for level, blocks in enumerate(_BLOCKS):
        whole = min(len(rest) // blocks.size, _BLOCKS_OF_A_SIZE) * blocks.size
        for (block,) in blocks.iter_unpack(rest[:whole]):
            previous = xxh3_64_intdigest(block, previous) & _HASH_BITS | level
            hashes.append(previous)
        if whole < _BLOCKS_OF_A_SIZE * blocks.size:
            break
        rest = rest[whole:]
    return hashes


def block_bytes(block: int) -> int:
    """Bytes of the block that has this hash."""
    return SMALLEST << (block & LEVEL_BITS)


def leading_tokens(bytes_per_token: float) -> Sequence[int]:
    """Estimated tokens of the first 0, 1, 2, ... blocks of any prompt: the same table for all prompts."""
    return _leading_tokens(int(10 * bytes_per_token + 0.5))


@lru_cache(maxsize=64)
def _leading_tokens(tenths: int) -> Sequence[int]:
    sizes = [SMALLEST << level for level in range(_LEVELS) for _ in range(_BLOCKS_OF_A_SIZE)]
    tokens = [max(1, int(10 * size / max(tenths, 1))) for size in sizes]
    return tuple(accumulate(tokens, initial=0))
