"""The block types of GGUF whose weights are a scale, an offset and small integers: these can stay as they are.

A block is 32 neighbours of a row. Source: https://github.com/ggml-org/ggml, ggml-common.h.
"""

from collections.abc import Mapping
from dataclasses import dataclass

BLOCK = 32  # weights


@dataclass(frozen=True)
class BlockLayout:
    """A block on disk: float16 values (d, or d and m), then the integers q. w = d * (q - zero) + m."""

    floats: int
    bits: int  # 4: byte i has q[i] in its low and q[i + 16] in its high half. 8: signed
    zero: int

    @property
    def nbytes(self) -> int:
        """Bytes of one block of BLOCK weights."""
        return 2 * self.floats + BLOCK * self.bits // 8


LAYOUTS: Mapping[str, BlockLayout] = {
    "Q4_0": BlockLayout(floats=1, bits=4, zero=8),
    "Q4_1": BlockLayout(floats=2, bits=4, zero=0),
    "Q8_0": BlockLayout(floats=1, bits=8, zero=0),
}
