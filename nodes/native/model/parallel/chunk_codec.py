"""A step's chunks as bytes, from rank 0 to the others."""

from collections.abc import Sequence

import msgspec

from ..step import Chunk


class _WireChunk(msgspec.Struct, array_like=True, frozen=True):
    """A `Chunk` on its way."""

    tokens: list[int]
    start: int
    blocks: list[int]
    num_logits: int


def encode(chunks: Sequence[Chunk]) -> bytes:
    """For `decode`, in another process."""
    return msgspec.msgpack.encode([_WireChunk(list(c.tokens), c.start, list(c.blocks), c.num_logits) for c in chunks])


def decode(message: bytes) -> list[Chunk]:
    """What was encoded."""
    found = msgspec.msgpack.decode(message, type=list[_WireChunk])
    return [Chunk(each.tokens, each.start, each.blocks, each.num_logits) for each in found]
