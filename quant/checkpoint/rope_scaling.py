"""What config.json says of rotary position embedding; torch is not needed for it.

The keys are those of transformers' modeling_rope_utils.py. A key that no type of rope has is refused; one that another
type has is passed over, as transformers does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...core.errors import UnsupportedModelError
from .keys import Keys

ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")
_KNOWN = {
    "rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings",
    "low_freq_factor", "high_freq_factor",  # llama3
    "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",  # yarn
    "short_factor", "long_factor",  # longrope
    "mrope_section",  # how image positions are spread; those of text are all alike
    "finetuned",  # a remark
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding; which fields count depends on `type`."""

    type: str = "default"
    theta: float = 10000.0
    factor: float = 1.0
    original_max_position: int  # positions seen in pretraining, before scaling
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    attention_factor: float | None = None  # yarn; None: from `factor` and the two below
    mscale: float | None = None  # yarn
    mscale_all_dim: float | None = None  # yarn
    truncate: bool = True  # yarn

    def positions(self, max_position: int) -> int:
        """How many positions a model with this max_position_embeddings is made for.

        Scaling stretches them where config.json still has those of before: linear by `factor`, yarn to `factor` times
        the original ones. llama3's are stretched already. dynamic changes with the length of each sequence, which is
        not computed here: it ends where it would begin.
        """
        if self.type == "linear":
            return max(max_position, int(max_position * self.factor))
        if self.type == "yarn":
            return max(max_position, int(self.original_max_position * self.factor))
        return max_position


def parse_rope(raw: Mapping[str, Any], max_position: int, source: str) -> RopeConfig:
    """RopeConfig of a config.json in either spelling.

    `rope_parameters` (transformers 5), or `rope_theta` beside `rope_scaling` (before), which counts where both are
    there. Raises UnsupportedModelError, CorruptModelError.
    """
    scaling = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if not isinstance(scaling, dict):
        raise Keys(raw, source).wrong("rope_scaling", scaling, "an object")
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    _check(scaling, raw, kind, source)
    keys = Keys({"rope_theta": raw.get("rope_theta")} | _given(scaling), f"{source}: rope parameters")
    if kind in ("linear", "llama3") and "factor" not in keys.raw:
        raise keys.wrong("factor", None, "a positive number")
    original = max_position
    if kind in ("llama3", "yarn"):
        outside = raw.get("original_max_position_embeddings")
        original = keys.positive("original_max_position_embeddings", max_position)
        original = original if outside is None else Keys(raw, source).positive("original_max_position_embeddings")
    return RopeConfig(
        type=kind,
        theta=keys.number("rope_theta", 10000.0),
        factor=keys.number("factor", max_position / original if kind == "yarn" else 1.0),
        original_max_position=original,
        **(_llama3(keys) if kind == "llama3" else _yarn(keys) if kind == "yarn" else {}),
    )


def _llama3(keys: Keys) -> dict[str, float]:
    return {name: keys.number(name) for name in ("low_freq_factor", "high_freq_factor")}


def _yarn(keys: Keys) -> dict[str, Any]:
    optional = ("attention_factor", "mscale", "mscale_all_dim")
    return {
        "beta_fast": keys.number("beta_fast", may_be_zero=True, default=32.0) or 32.0,
        "beta_slow": keys.number("beta_slow", may_be_zero=True, default=1.0) or 1.0,
        "truncate": keys.flag("truncate", True),
        **{name: keys.number(name, may_be_zero=True) for name in optional if name in keys.raw},
    }


def _check(scaling: Mapping[str, Any], raw: Mapping[str, Any], kind: object, source: str) -> None:
    """Raise UnsupportedModelError for what is not computed."""
    if kind not in ROPE_TYPES:
        raise UnsupportedModelError(f"{source}: rope type {kind!r} is not one of {', '.join(ROPE_TYPES)}")
    unknown = sorted(set(scaling) - _KNOWN)
    if unknown:
        raise UnsupportedModelError(f"{source}: rope parameters {', '.join(unknown)} are not known to this engine")
    partial = scaling.get("partial_rotary_factor", raw.get("partial_rotary_factor")) or 1.0
    if partial != 1.0:
        raise UnsupportedModelError(f"{source}: partial_rotary_factor {partial}; supported is 1.0")


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
