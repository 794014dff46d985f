"""The ways in which an evaluation computes the two checkpoints."""

from dataclasses import dataclass
from typing import Literal

from .evaluation import EXACT_ORIGINAL, EXACT_QUANTIZED, ORIGINAL, QUANTIZED

WINDOW = 256  # tokens that perplexity is measured on at a time
_FEW_ROWS = 2  # tokens in a step that still use all kernels of decoding at batch 1, see linears/table.py


@dataclass(frozen=True)
class Variant:
    """One way to compute one of the two checkpoints."""

    name: str
    checkpoint: Literal["original", "quantized"]
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    chunk: int = WINDOW  # tokens in a step of the perplexity


# The first is what the others' perplexities are compared with.
VARIANTS = (
    Variant(EXACT_ORIGINAL, "original", dtype="float32"),
    Variant(ORIGINAL, "original"),
    Variant(EXACT_QUANTIZED, "quantized", dtype="float32"),
    Variant(QUANTIZED, "quantized", chunk=_FEW_ROWS),
    *(
        Variant(f"{QUANTIZED}-kv-{kind}", "quantized", kv_cache_dtype=kind, chunk=_FEW_ROWS)
        for kind in ("int8", "int4")
    ),
)
