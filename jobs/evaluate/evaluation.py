"""What an evaluation found out about a quantized checkpoint: `evaluation.json`, and what follows from its figures."""

from pathlib import Path
from typing import Literal

import msgspec

from ...core.errors import CorruptModelError
from ...core.files import read_text

ORIGINAL, EXACT_ORIGINAL = "original", "original-float32"
QUANTIZED, EXACT_QUANTIZED = "quantized", "quantized-float32"
PAGE = "evaluation.png"  # beside evaluation.json, where it was drawn
BATCHES = (1, 16)  # sequences that are decoded together


class LinearError(msgspec.Struct, frozen=True, kw_only=True):
    """The errors of one linear layer on the calibration inputs X, by two ways of rounding that change W by dW.

    ||X dW^T||^2 / ||X W^T||^2.
    """

    error: float  # as it was quantized
    rtn_error: float  # round to nearest


class LayerErrors(msgspec.Struct, frozen=True, kw_only=True):
    """The errors of one decoder layer, by the linear's name, such as "self_attn.q_proj"."""

    index: int
    linears: dict[str, LinearError]


class Quantization(msgspec.Struct, frozen=True, kw_only=True):
    """What `quantization.json` says, the quantizer's own record of its work."""

    method: str
    bits: int
    group_size: int
    layers: tuple[LayerErrors, ...]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A model directory."""

    path: str
    bytes: int  # of its safetensors files


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one checkpoint, computed in one way."""

    name: str
    checkpoint: Literal["original", "quantized"]
    dtype: str  # computed in
    kv_cache_dtype: str
    perplexity: float
    perplexity_ratio: float  # to that of the original in float32
    perplexity_ratio_error: float  # standard error of that ratio, from the differences token by token
    decode_tokens_per_s: dict[int, float]  # by batch size, of all sequences together
    prefill_tokens_per_s: float
    weights_bytes: int  # in memory
    peak_bytes: int  # of the process, KV cache in use and libraries included
    kv_bytes_per_token: int
    tokens_per_gib: int  # that a KV cache of 1 GiB holds


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """A quantized checkpoint beside its original."""

    version: Literal[1] = 1
    date: str  # ISO 8601
    model: str  # the original's name
    original: Checkpoint
    quantized: Checkpoint
    method: str
    bits: int | None  # None: config.json does not say it in the usual place
    group_size: int | None
    text: str
    windows: int
    window: int  # tokens; the first of each is given, not scored
    cpu: str
    cpus: int
    variants: tuple[Figures, ...]
    quantization: Quantization | None  # None: the checkpoint came without quantization.json

    def variant(self, name: str) -> Figures:
        """The figures of the variant with this name."""
        return next(figures for figures in self.variants if figures.name == name)

    @property
    def size_ratio(self) -> float:
        """How many times smaller the files are."""
        return self.original.bytes / self.quantized.bytes

    @property
    def perplexity_change(self) -> float:
        """0.02: 2% more than the original in float32 has, as the checkpoint is served."""
        return self.variant(QUANTIZED).perplexity_ratio - 1

    def speedup(self, batch: int) -> float:
        """Decode speed as served, relative to the original as served."""
        new, old = (self.variant(name).decode_tokens_per_s[batch] for name in (QUANTIZED, ORIGINAL))
        return new / old


def read_evaluation(checkpoint: Path) -> Evaluation:
    """What `evaluate` has written there. Raises CorruptModelError."""
    path = checkpoint / "evaluation.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Evaluation)
    except (OSError, msgspec.MsgspecError) as error:
        raise CorruptModelError(f"cannot read {path}: {error}") from error


def read_quantization(checkpoint: Path) -> Quantization | None:
    """`quantization.json` of a model directory; None if it has none. Raises CorruptModelError."""
    path = checkpoint / "quantization.json"
    text = read_text(path)
    if text is None:
        return None
    try:
        found = msgspec.json.decode(text, type=Quantization)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CorruptModelError(f"cannot read {path}: {error}") from error
    names = {frozenset(layer.linears) for layer in found.layers}
    if len(names) != 1 or not all(names):
        raise CorruptModelError(f"cannot read {path}: expected layers, all with the same linears")
    return found
