"""What a decoder is made of, read from a Hugging Face `config.json`; torch is not needed for it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import CorruptModelError, ModelNotFoundError, UnsupportedModelError
from .quantization import Scheme, parse_scheme

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")
# Keys of config.json that older files leave out, and what transformers then takes.
_DEFAULTS: Mapping[str, Any] = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shape of a decoder of one of ARCHITECTURES."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    rope: RopeConfig
    windows: tuple[int | None, ...]  # per layer: a token sees that many, itself included; None: all before it
    eos_token_ids: tuple[int, ...]
    quantization: Scheme | None = None  # of the linear layers


def read_config(model: Path) -> ModelConfig:
    """Read `config.json` (and the end tokens of `generation_config.json`) of a model directory.

    Raises ModelNotFoundError, CorruptModelError (a key is missing or senseless), UnsupportedModelError.
    """
    if not model.is_dir():
        raise ModelNotFoundError(f"no model directory {model}")
    path = model / "config.json"
    if not path.exists():
        raise ModelNotFoundError(f"{model} has no config.json: not a Hugging Face model directory")
    generation = model / "generation_config.json"
    return parse_config(_read_json(path), _read_json(generation) if generation.exists() else {}, str(path))


def stored_bytes(model: Path) -> int:
    """Bytes that the tensors (*.safetensors) of a model directory take on the disk."""
    return sum(path.stat().st_size for path in model.glob("*.safetensors"))


def parse_config(raw: Mapping[str, Any], generation: Mapping[str, Any], source: str) -> ModelConfig:
    """ModelConfig of the content of `config.json` and `generation_config.json`; `source` names it in errors."""
    architecture = _architecture(raw, source)
    _check_supported(raw, source)
    keys = _Keys(raw, source)
    num_heads, hidden_size = keys.positive("num_attention_heads"), keys.positive("hidden_size")
    attention_bias = bool(raw.get("attention_bias", False)) and architecture != "MistralForCausalLM"
    config = ModelConfig(
        architecture=architecture,
        vocab_size=keys.positive("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=keys.positive("intermediate_size"),
        num_layers=keys.positive("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=keys.positive("num_key_value_heads", num_heads),
        head_dim=keys.positive("head_dim", hidden_size // num_heads),
        rms_norm_eps=float(raw.get("rms_norm_eps", _DEFAULTS["rms_norm_eps"])),
        max_position_embeddings=keys.positive("max_position_embeddings"),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", _DEFAULTS["tie_word_embeddings"])),
        qkv_bias=attention_bias or architecture == "Qwen2ForCausalLM",
        o_bias=attention_bias and architecture != "Qwen2ForCausalLM",
        mlp_bias=bool(raw.get("mlp_bias", False)) and architecture == "LlamaForCausalLM",
        qk_norm=architecture == "Qwen3ForCausalLM",
        rope=_rope(raw, keys.positive("max_position_embeddings"), source),
        windows=_windows(raw, architecture, keys),
        eos_token_ids=_eos_token_ids(raw, generation),
        quantization=parse_scheme(raw, source),
    )
    if config.num_heads % config.num_kv_heads or config.head_dim % 2:
        raise CorruptModelError(
            f"{source}: {config.num_heads} heads over {config.num_kv_heads} key-value heads of {config.head_dim}: "
            "expected a multiple, and an even head size"
        )
    return config


class _Keys:
    """Access to config.json that names the key in its errors."""

    def __init__(self, raw: Mapping[str, Any], source: str) -> None:
        self._raw, self._source = raw, source

    def positive(self, key: str, default: int | None = None) -> int:
        value = self._raw.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise CorruptModelError(f"{self._source}: {key} = {value!r}: expected a positive integer")
        return value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CorruptModelError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise CorruptModelError(f"{path}: expected a JSON object")
    return value


def _architecture(raw: Mapping[str, Any], source: str) -> str:
    names = raw.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if name not in ARCHITECTURES:
        raise UnsupportedModelError(f"{source}: architecture {name} is not one of {', '.join(ARCHITECTURES)}")
    return str(name)


def _check_supported(raw: Mapping[str, Any], source: str) -> None:
    activation = raw.get("hidden_act", _DEFAULTS["hidden_act"])
    if activation != "silu":
        raise UnsupportedModelError(f"{source}: hidden_act {activation!r}; supported is silu")


def _rope(raw: Mapping[str, Any], max_position: int, source: str) -> RopeConfig:
    """Both spellings: `rope_parameters` (transformers 5) and `rope_theta` beside `rope_scaling` (before)."""
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    rope_type = scaling.get("rope_type") or scaling.get("type") or "default"
    if rope_type not in ROPE_TYPES:
        raise UnsupportedModelError(f"{source}: rope type {rope_type!r} is not one of {', '.join(ROPE_TYPES)}")
    partial = scaling.get("partial_rotary_factor", raw.get("partial_rotary_factor")) or 1.0
    if partial != 1.0:
        raise UnsupportedModelError(f"{source}: partial_rotary_factor {partial}; supported is 1.0")
    numbers = set(RopeConfig.__dataclass_fields__) - {"type", "theta", "original_max_position", "truncate"}
    try:
        return RopeConfig(
            type=rope_type,
            theta=float(scaling.get("rope_theta") or raw.get("rope_theta") or 10000.0),
            original_max_position=int(scaling.get("original_max_position_embeddings") or max_position),
            truncate=bool(scaling.get("truncate", True)),
            **{name: float(scaling[name]) for name in numbers if scaling.get(name) is not None},
        )
    except (TypeError, ValueError) as error:
        raise CorruptModelError(f"{source}: rope parameters {dict(scaling)!r}: {error}") from error


def _windows(raw: Mapping[str, Any], architecture: str, keys: _Keys) -> tuple[int | None, ...]:
    num_layers = keys.positive("num_hidden_layers")
    window = keys.positive("sliding_window") if raw.get("sliding_window") is not None else None
    if architecture == "MistralForCausalLM":
        return (window,) * num_layers
    if architecture == "LlamaForCausalLM" or not raw.get("use_sliding_window", False):
        return (None,) * num_layers
    first = raw.get("max_window_layers", num_layers)
    types = raw.get("layer_types") or ["full_attention"] * first + ["sliding_attention"] * (num_layers - first)
    return tuple(window if kind == "sliding_attention" else None for kind in types[:num_layers])


def _eos_token_ids(*sources: Mapping[str, Any]) -> tuple[int, ...]:
    found: set[int] = set()
    for source in sources:
        ids = source.get("eos_token_id")
        found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return tuple(sorted(found))
