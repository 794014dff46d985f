"""Serialize a step's chunks, which rank 0 broadcasts to the other ranks (msgpack)."""

from collections.abc import Sequence

import msgspec

from .....quant.checkpoint.embedding import Pooling
from ..step import Chunk


class _WireChunk(msgspec.Struct, array_like=True, frozen=True):
    """The fields of a `Chunk` as they are encoded."""

    tokens: list[int]
    start: int
    blocks: list[int]
    num_logits: int
    prompt: bool
    pooling: Pooling | None


def encode(chunks: Sequence[Chunk]) -> bytes:
    """Serialize the chunks of a step to msgpack."""
    return msgspec.msgpack.encode(
        [_WireChunk(list(c.tokens), c.start, list(c.blocks), c.num_logits, c.prompt, c.pooling) for c in chunks]
    )


def decode(message: bytes) -> list[Chunk]:
    """Deserialize what `encode` returned. Raises msgspec.DecodeError for anything else."""
    found = msgspec.msgpack.decode(message, type=list[_WireChunk])
    return [Chunk(each.tokens, each.start, each.blocks, each.num_logits, each.prompt, each.pooling) for each in found]
