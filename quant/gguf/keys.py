"""The keys below an architecture's prefix that a GGUF file may have, such as `llama.rope.freq_base`.

Each of them may change what a model computes, so that one which is not in these tables is refused.
Sources: gguf-py/gguf/constants.py and src/llama-model.cpp of https://github.com/ggml-org/llama.cpp.
"""

from collections.abc import Mapping

from ...core.errors import UnsupportedModelError
from .reader import GgufFile

READ = frozenset({
    "block_count", "context_length", "embedding_length", "feed_forward_length",
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base", "rope.scale_linear",
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
})  # fmt: skip
# For the reader of the file, or for operations that these architectures do not have.
WITHOUT_EFFECT = frozenset({
    "vocab_size",  # follows from the embedding
    "tensor_data_layout",  # a remark
    "rope.scaling.finetuned",  # a remark
    "attention.layer_norm_epsilon",  # of LayerNorm; these have RMSNorm
})  # fmt: skip
# Keys that switch on what is not computed here, and the values with which they do not.
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.scale": (0,),
    "attention.sliding_window": (0,),
    "attn_logit_softcapping": (0,),
    "embedding_scale": (0, 1),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "final_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "nextn_predict_layers": (0,),
    "pooling_type": (0,),
    "residual_scale": (0, 1),
    "rope.scaling.attn_factor": (1,),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_ext_factor": (1,),
    "rope.scaling.yarn_log_multiplier": (0,),
    "use_parallel_residual": (False,),
}


def check_keys(file: GgufFile) -> None:
    """Raise UnsupportedModelError for a key that would change what is computed, and that this engine does not obey."""
    prefix = f"{file.architecture}."
    for key in sorted(set(file.keys_under(prefix)) - READ - WITHOUT_EFFECT):
        value = file.value(prefix + key)
        if key not in NEUTRAL:
            raise UnsupportedModelError(f"{file.path}: {prefix}{key} = {value!r}: a key that this engine does not know")
        if value not in NEUTRAL[key]:
            expected = " or ".join(str(neutral) for neutral in NEUTRAL[key])
            raise UnsupportedModelError(f"{file.path}: {prefix}{key} = {value!r}: supported is {expected}")
