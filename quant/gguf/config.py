"""GGUF metadata -> the config.json and generation_config.json that the model's authors would have written.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md ("llm" section).
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.errors import CorruptModelError, UnsupportedModelError
from .keys import check_keys
from .reader import GgufFile

ARCHITECTURES = {
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen2": ("Qwen2ForCausalLM", "qwen2"),
    "qwen3": ("Qwen3ForCausalLM", "qwen3"),
}
# Tokens with which chat models end their turn, where the metadata names another one as end of text.
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<|end_of_text|>")
# Llama 3.1 and later: https://github.com/meta-llama/llama-models, apply_scaling. GGUF stores only its result.
_LLAMA3_LOW, _LLAMA3_HIGH, _LLAMA3_CONTEXT = 1.0, 4.0, 8192


def model_config(file: GgufFile, dtype: str) -> dict[str, Any]:
    """config.json. `dtype` is the one that the weights are written in. Raises UnsupportedModelError."""
    names = ARCHITECTURES.get(file.architecture)
    if names is None:
        raise UnsupportedModelError(
            f"{file.path} is of architecture {file.architecture!r}; supported: {', '.join(ARCHITECTURES)}"
        )
    check_keys(file)
    architecture, model_type = names
    prefix = f"{file.architecture}."
    heads = file.get(prefix + "attention.head_count", int)
    hidden = file.get(prefix + "embedding_length", int)
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": _vocab_size(file),
        "hidden_size": hidden,
        "intermediate_size": file.get(prefix + "feed_forward_length", int),
        "num_hidden_layers": file.get(prefix + "block_count", int),
        "num_attention_heads": heads,
        "num_key_value_heads": file.find(prefix + "attention.head_count_kv", int, heads),
        "head_dim": _head_dim(file, hidden // heads),
        "hidden_act": "silu",
        "rms_norm_eps": _shortest(file.get(prefix + "attention.layer_norm_rms_epsilon", float)),
        "max_position_embeddings": file.get(prefix + "context_length", int),
        "rope_theta": file.find(prefix + "rope.freq_base", float, 10000.0),
        "rope_scaling": _rope_scaling(file),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "torch_dtype": dtype,
        **_token_ids(file),
    }


def generation_config(file: GgufFile) -> dict[str, Any]:
    """generation_config.json: where generation ends."""
    ids = _token_ids(file)
    tokens = file.get("tokenizer.ggml.tokens", list[str])
    template = file.find("tokenizer.chat_template", str, "")
    ends = {ids["eos_token_id"], file.find("tokenizer.ggml.eot_token_id", int, -1)}
    ends |= {tokens.index(token) for token in _END_OF_TURN if token in template and token in tokens}
    return ids | {"eos_token_id": sorted(end for end in ends if end is not None and end >= 0)}


def _token_ids(file: GgufFile) -> dict[str, int | None]:
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    keys = {ours: f"tokenizer.ggml.{theirs}_token_id" for ours, theirs in names.items()}
    return {ours: file.get(key, int) if file.has(key) else None for ours, key in keys.items()}


def _vocab_size(file: GgufFile) -> int:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise CorruptModelError(f"{file.path} has no tensor token_embd.weight")
    return int(embedding.shape[1])


def _head_dim(file: GgufFile, default: int) -> int:
    key = file.find(f"{file.architecture}.attention.key_length", int, default)
    value = file.find(f"{file.architecture}.attention.value_length", int, key)
    if key != value:
        raise UnsupportedModelError(f"{file.path} has keys of {key} and values of {value} dimensions: must be equal")
    rotated = file.find(f"{file.architecture}.rope.dimension_count", int, key)
    if rotated != key:
        raise UnsupportedModelError(f"{file.path} rotates {rotated} of {key} dimensions of a head: supported are all")
    return key


def _rope_scaling(file: GgufFile) -> dict[str, Any] | None:
    """What llama.cpp makes of the keys: a file that has a factor and no type scales linearly."""
    prefix = f"{file.architecture}.rope.scaling."
    kind = file.find(prefix + "type", str, "linear")
    if kind not in ("none", "linear", "yarn"):
        raise UnsupportedModelError(f"{file.path} scales its rope by {kind}; supported: none, linear, yarn, llama3")
    factor = file.find(prefix + "factor", float, 0.0)
    factor = factor or file.find(f"{file.architecture}.rope.scale_linear", float, 0.0)  # the name that it had before
    is_scaled = kind != "none" and factor not in (0.0, 1.0)
    if "rope_freqs.weight" in file.tensors:
        if is_scaled:
            raise UnsupportedModelError(f"{file.path} scales its rope twice, by {kind} and by rope_freqs.weight")
        return _llama3_scaling(file)
    if not is_scaled:
        return None
    return {"rope_type": kind, "factor": factor} | (_yarn(file, prefix) if kind == "yarn" else {})


def _yarn(file: GgufFile, prefix: str) -> dict[str, Any]:
    context = file.get(f"{file.architecture}.context_length", int)
    betas = {name: f"{prefix}yarn_{name}" for name in ("beta_fast", "beta_slow")}
    return {
        "original_max_position_embeddings": file.find(prefix + "original_context_length", int, context),
        **{name: file.get(key, float) for name, key in betas.items() if file.has(key)},
    }


def _llama3_scaling(file: GgufFile) -> dict[str, Any]:
    """Find the factor again from the stored divisors of every frequency, and make sure that it explains them all."""
    stored = np.asarray(file.tensors["rope_freqs.weight"].data, dtype=np.float64)
    theta = file.find(f"{file.architecture}.rope.freq_base", float, 10000.0)
    factor = float(stored.max())
    if not np.allclose(stored, _llama3_divisors(theta, len(stored), factor), rtol=1e-3):
        raise UnsupportedModelError(f"{file.path} scales its rope by factors that are not Llama 3's")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": _LLAMA3_LOW,
        "high_freq_factor": _LLAMA3_HIGH,
        "original_max_position_embeddings": _LLAMA3_CONTEXT,
    }


def _llama3_divisors(theta: float, count: int, factor: float) -> npt.NDArray[np.float64]:
    """What Llama 3 divides each of `count` rope frequencies by: 1 for the fast ones, `factor` for the slow ones."""
    wavelength = 2 * math.pi * theta ** (np.arange(count) / count)
    smooth = (_LLAMA3_CONTEXT / wavelength - _LLAMA3_LOW) / (_LLAMA3_HIGH - _LLAMA3_LOW)
    smooth = np.clip(smooth, 0.0, 1.0)
    return 1.0 / ((1.0 - smooth) / factor + smooth)


def _shortest(value: float) -> float:
    """The shortest decimal that is the same float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
