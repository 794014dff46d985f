"""What a decoder is made of, read from a Hugging Face `config.json`; torch is not needed for it.

Every key that changes what transformers computes is obeyed or refused:

    obeyed   the fields of ModelConfig, by the names in `parse_config`; keys that are missing count as what
             transformers' class for the architecture says
    refused  other values of hidden_act and partial_rotary_factor; rope types and rope parameters that are not computed
             (rope_scaling.py); a model_type of another architecture; _ELSEWHERE, keys of other families
    without  the rest: of training (dropout, initializer_range), of loading (torch_dtype, use_cache), of tokens (bos,
    effect   pad), pretraining_tp, which splits products and sums them again; attention_bias and mlp_bias where the
             architecture has none, sliding_window and layer_types of Llama: transformers passes over them too
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.errors import CorruptModelError, ModelNotFoundError, UnsupportedModelError
from .files import read_json_object, stores_tensor
from .keys import Keys
from .quantization import Scheme, parse_scheme
from .rope_scaling import RopeConfig, parse_rope

# Keys that older files leave out, and what transformers' classes then take, by model_type.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28},
    "qwen3": {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28, "head_dim": 128},
}
_MODEL_TYPES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
ARCHITECTURES = tuple(_MODEL_TYPES)
# Decoders without lm_head, which are made for embeddings, and the architecture that has one.
BARE = {name.replace("ForCausalLM", "Model"): name for name in ARCHITECTURES}
_ENCODERS = ("Bert", "Roberta", "XLMRoberta", "MPNet", "DistilBert", "Deberta", "ModernBert", "Electra", "Albert", "T5")
# Keys that change numbers in other families, which configs of models made from them carry. null, false, 0, 1 and what
# is empty change nothing.
_ELSEWHERE = (
    "attention_chunk_size", "attention_multiplier", "attn_logit_softcapping", "alibi", "clip_qkv",
    "embedding_multiplier", "final_logit_softcapping", "logit_scale", "logits_scaling", "n_routed_experts",
    "no_rope_layers", "num_experts", "num_local_experts", "qk_layernorm", "query_pre_attn_scalar",
    "residual_multiplier", "rope_interleave", "rotary_dim", "rotary_pct", "scale_depth", "scale_emb", "use_alibi",
    "use_bidirectional_attention", "use_qk_norm",
)  # fmt: skip
_LAYER_TYPES = ("full_attention", "sliding_attention")
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shape of a decoder of one of ARCHITECTURES, with or without lm_head."""

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
    has_head: bool = True  # False: an embedding model that has no lm_head, and generates nothing
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    rope: RopeConfig
    windows: tuple[int | None, ...]  # per layer: a token sees that many, itself included; None: all before it
    quantization: Scheme | None = None  # of the linear layers

    @property
    def context_length(self) -> int:
        """How many positions the model is made for, those that scaled rope adds included."""
        return self.rope.positions(self.max_position_embeddings)


def read_config(model: Path) -> ModelConfig:
    """Read `config.json` of a model directory.

    A head of its own that is stored counts, though config.json ties it to the embedding: transformers takes it too.
    Raises ModelNotFoundError, CorruptModelError (a key is missing or senseless), UnsupportedModelError.
    """
    if not model.is_dir():
        raise ModelNotFoundError(f"no model directory {model}")
    path = model / "config.json"
    if not path.exists():
        raise ModelNotFoundError(f"{model} has no config.json: not a Hugging Face model directory")
    config = parse_config(read_json_object(path), str(path))
    if config.tie_word_embeddings and stores_tensor(model, _HEAD) and stores_tensor(model, _EMBEDDING):
        return replace(config, tie_word_embeddings=False)
    return config


def parse_config(raw: Mapping[str, Any], source: str) -> ModelConfig:
    """ModelConfig of the content of `config.json`; `source` names it in errors."""
    architecture, has_head = _architecture(raw, source)
    _check_supported(raw, source)
    keys = Keys({**_DEFAULTS[_MODEL_TYPES[architecture]], **raw}, source)
    num_heads, hidden_size = keys.positive("num_attention_heads"), keys.positive("hidden_size")
    max_position = keys.positive("max_position_embeddings")
    attention_bias = keys.flag("attention_bias") and architecture != "MistralForCausalLM"
    config = ModelConfig(
        architecture=architecture,
        vocab_size=keys.positive("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=keys.positive("intermediate_size"),
        num_layers=keys.positive("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=keys.positive("num_key_value_heads", num_heads),
        head_dim=keys.positive("head_dim", hidden_size // num_heads),
        rms_norm_eps=keys.number("rms_norm_eps", 1e-6, may_be_zero=True),
        max_position_embeddings=max_position,
        tie_word_embeddings=keys.flag("tie_word_embeddings"),
        has_head=has_head,
        qkv_bias=attention_bias or architecture == "Qwen2ForCausalLM",
        o_bias=attention_bias and architecture != "Qwen2ForCausalLM",
        mlp_bias=keys.flag("mlp_bias") and architecture == "LlamaForCausalLM",
        qk_norm=architecture == "Qwen3ForCausalLM",
        rope=parse_rope(raw, max_position, source),
        windows=_windows(architecture, keys),
        quantization=parse_scheme(raw, source),
    )
    if config.num_heads % config.num_kv_heads or config.head_dim % 2:
        raise CorruptModelError(
            f"{source}: {config.num_heads} heads over {config.num_kv_heads} key-value heads of {config.head_dim}: "
            "expected a multiple, and an even head size"
        )
    return config


def _architecture(raw: Mapping[str, Any], source: str) -> tuple[str, bool]:
    """One of ARCHITECTURES, and whether the model has lm_head."""
    names = raw.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    has_head = not isinstance(name, str) or name not in BARE
    if isinstance(name, str):
        name = BARE.get(name, name)
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UnsupportedModelError(_refusal(name, source))
    found = raw.get("model_type", _MODEL_TYPES[name])
    if found != _MODEL_TYPES[name]:
        expected = f"architecture {name} goes with {_MODEL_TYPES[name]!r}"
        raise UnsupportedModelError(f"{source}: model_type {found!r}: {expected}")
    return name, has_head


def _refusal(name: Any, source: str) -> str:
    known = f"one of {', '.join(ARCHITECTURES)}, or for embeddings {', '.join(BARE)}"
    if isinstance(name, str) and name.startswith(_ENCODERS):
        return (
            f"{source}: architecture {name} is an encoder, whose tokens attend to those behind them; the native engine "
            f"computes decoders only, {known}; engine vllm or sglang computes encoders"
        )
    return f"{source}: architecture {name} is not {known}"


def _check_supported(raw: Mapping[str, Any], source: str) -> None:
    if raw.get("is_causal", True) is False:
        raise UnsupportedModelError(
            f"{source}: is_causal = false: expected true; in the native engine no token attends to those behind it"
        )
    activation = raw.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):  # two names for one
        raise UnsupportedModelError(f"{source}: hidden_act {activation!r}; supported is silu")
    for key in _ELSEWHERE:
        value = raw.get(key)
        if value and value != 1:
            expected = "the native engine does not compute it; engine sglang or vllm may"
            raise UnsupportedModelError(f"{source}: {key} = {value!r}: {expected}")


def _windows(architecture: str, keys: Keys) -> tuple[int | None, ...]:
    num_layers = keys.positive("num_hidden_layers")
    if architecture == "LlamaForCausalLM" or keys.raw.get("sliding_window") is None:
        return (None,) * num_layers
    if architecture == "MistralForCausalLM":
        return (keys.positive("sliding_window"),) * num_layers
    types = _layer_types(keys, num_layers)
    window = keys.positive("sliding_window") if keys.flag("use_sliding_window") else None
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def _layer_types(keys: Keys, num_layers: int) -> list[str]:
    types = keys.raw.get("layer_types")
    if types is None:
        first = int(keys.number("max_window_layers", may_be_zero=True))
        return [_LAYER_TYPES[layer >= first] for layer in range(num_layers)]
    if not isinstance(types, list) or len(types) != num_layers or any(kind not in _LAYER_TYPES for kind in types):
        raise keys.wrong("layer_types", types, f"{num_layers} times one of {', '.join(_LAYER_TYPES)}")
    return types
