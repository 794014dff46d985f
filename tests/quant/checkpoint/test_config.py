"""config.json is read in both of its spellings, and what cannot be computed is refused by name."""

import json
import subprocess
import sys
from typing import Any

import pytest

from slurminfer.core.errors import CorruptModelError, ModelNotFoundError, UnsupportedModelError
from slurminfer.quant.checkpoint.config import ARCHITECTURES, parse_config, read_config
from slurminfer.quant.checkpoint.formats import make_format
from slurminfer.quant.checkpoint.quantization import SCHEMES

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
}
YARN = {"factor": 4.0, "original_max_position_embeddings": 512, "beta_fast": 16.0}


def parse(**changes):
    return parse_config(LLAMA | changes, "config.json")


def test_missing_keys_take_the_architecture_s_defaults():
    config = parse()
    assert (config.num_kv_heads, config.head_dim, config.rope.type, config.rope.theta) == (4, 16, "default", 10000.0)
    assert not (config.tie_word_embeddings or config.qkv_bias or config.o_bias or config.mlp_bias or config.qk_norm)
    assert config.windows == (None,) * 4


def test_old_and_new_rope_spellings_mean_the_same():
    old = parse(rope_theta=5e5, rope_scaling=YARN | {"type": "yarn"})
    new = parse(rope_parameters=YARN | {"rope_type": "yarn", "rope_theta": 5e5})
    assert old == new
    assert (new.rope.theta, new.rope.factor, new.rope.original_max_position, new.rope.beta_fast) == (5e5, 4, 512, 16)


@pytest.mark.parametrize(
    ("architecture", "changes", "windows"),
    [
        ("MistralForCausalLM", {"sliding_window": 7}, (7, 7, 7, 7)),
        ("MistralForCausalLM", {"sliding_window": None}, (None,) * 4),
        ("LlamaForCausalLM", {"sliding_window": 7}, (None,) * 4),
        ("Qwen2ForCausalLM", {"sliding_window": 7, "use_sliding_window": False, "max_window_layers": 1}, (None,) * 4),
        (
            "Qwen2ForCausalLM",
            {"sliding_window": 7, "use_sliding_window": True, "max_window_layers": 3},
            (None, None, None, 7),
        ),
        (
            "Qwen3ForCausalLM",
            {
                "sliding_window": 7,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
            },
            (7, None, 7, None),
        ),
    ],
)
def test_sliding_windows_per_layer(architecture, changes, windows):
    shape = {"num_key_value_heads": 4, "head_dim": 16}
    assert parse(architectures=[architecture], **shape, **changes).windows == windows


def of_transformers(raw):
    """A config.json's values as transformers reads them."""
    from transformers import AutoConfig

    model_type = raw["architectures"][0].removesuffix("ForCausalLM").lower()
    config = AutoConfig.for_model(model_type, **raw)
    config.standardize_rope_params()  # as what computes with it does
    return config


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sliding_window": None, "num_key_value_heads": 16, "head_dim": 16},
        {"use_sliding_window": True, "num_hidden_layers": 30},
        {"use_sliding_window": True, "num_hidden_layers": 30, "max_window_layers": 0, "sliding_window": 9},
        {"use_sliding_window": False, "layer_types": ["sliding_attention"] * 4},
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
        {"rope_theta": 5.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_theta": 5.0, "rope_parameters": {"rope_theta": 7.0}},
        {"rope_scaling": YARN | {"type": "yarn"}, "rope_parameters": {"rope_type": "linear", "factor": 3.0}},
        {"rope_scaling": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 512}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "original_max_position_embeddings": 256},
    ],
)
def test_values_are_those_of_transformers(architecture, changes):
    """Missing keys, null, and several spellings of one thing."""
    raw = LLAMA | {"architectures": [architecture], "hidden_size": 4096, "num_attention_heads": 32} | changes
    ours, theirs = parse_config(raw, "config.json"), of_transformers(raw)
    rope = theirs.rope_parameters
    assert ours.num_kv_heads == theirs.num_key_value_heads
    assert ours.head_dim == (getattr(theirs, "head_dim", None) or 128)
    assert (ours.rms_norm_eps, ours.tie_word_embeddings) == (theirs.rms_norm_eps, theirs.tie_word_embeddings)
    assert (ours.rope.type, ours.rope.theta) == (rope["rope_type"], rope["rope_theta"])
    if ours.rope.type == "yarn":
        assert ours.rope.original_max_position == rope["original_max_position_embeddings"]
    if rope.get("factor"):
        assert ours.rope.factor == rope["factor"]
    elif ours.rope.type == "yarn":
        assert ours.rope.factor == 2048 / 512
    if architecture == "MistralForCausalLM":
        assert ours.windows == (theirs.sliding_window,) * ours.num_layers
    elif architecture != "LlamaForCausalLM":
        expected = [theirs.sliding_window if kind == "sliding_attention" else None for kind in theirs.layer_types]
        assert list(ours.windows) == expected


@pytest.mark.parametrize(
    ("scaling", "positions"),
    [
        (None, 64),
        ({"type": "linear", "factor": 4.0}, 256),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, 64),
        ({"type": "yarn", "factor": 4.0}, 256),
        ({"type": "dynamic", "factor": 4.0}, 64),
        (
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_max_position_embeddings": 32},
            64,
        ),
    ],
)  # fmt: skip
def test_scaled_rope_stretches_the_context(scaling, positions):
    assert parse(max_position_embeddings=64, rope_scaling=scaling).context_length == positions


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, ["GPT2LMHeadModel", "LlamaForCausalLM", "Qwen3ForCausalLM"]),
        ({"architectures": None}, ["None", "MistralForCausalLM"]),
        ({"rope_scaling": {"rope_type": "longrope"}}, ["longrope", "llama3", "yarn"]),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, ["partial_rotary_factor 0.5"]),
        ({"quantization_config": {"quant_method": "exl2"}}, ["exl2", "unquantized"]),
        ({"hidden_act": "gelu"}, ["gelu", "silu"]),
        ({"model_type": "mixtral"}, ["mixtral", "LlamaForCausalLM", "llama"]),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, ["full_attention"]),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "beta": 1.0}}, ["beta"]),
        ({"logit_scale": 0.5}, ["logit_scale", "0.5"]),
        ({"num_local_experts": 8}, ["num_local_experts", "8"]),
        ({"attn_logit_softcapping": 50.0}, ["attn_logit_softcapping", "50"]),
    ],
)
def test_what_is_not_computed_is_refused_with_what_is(changes, said):
    with pytest.raises(UnsupportedModelError) as error:
        parse(**changes)
    assert all(part in str(error.value) for part in said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": None}, "hidden_size = None"),
        ({"num_hidden_layers": "four"}, "num_hidden_layers = 'four'"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0"),
        ({"num_key_value_heads": 3}, "4 heads over 3"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "much"}}, "much"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor = None"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor = None"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor = 0"),
        ({"rope_scaling": "linear"}, "rope_scaling = 'linear'"),
        ({"rope_theta": float("nan")}, "rope_theta = nan"),
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps = 'tiny'"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings = 'false'"),
        ({"architectures": ["Qwen2ForCausalLM"], "layer_types": ["full_attention"]}, "layer_types"),
        ({"architectures": ["Qwen2ForCausalLM"], "layer_types": ["chunked_attention"] * 4}, "layer_types"),
    ],
)
def test_senseless_values_are_named(changes, said):
    with pytest.raises(CorruptModelError, match=said):
        parse(**changes)


def test_a_missing_directory_and_a_directory_without_config(tmp_path):
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        read_config(tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        read_config(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"architectures": ', "[" * 5000])
def test_damaged_json_is_a_corrupt_model(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CorruptModelError, match=r"config\.json"):
        read_config(tmp_path)


NEUTRAL: dict[str, Any] = {
    "logit_scale": 1.0,
    "num_experts": 0,
    "use_qk_norm": False,
    "clip_qkv": None,
    "model_type": "llama",
}
NEUTRAL |= {"rope_scaling": {"rope_type": "default", "beta_fast": 3, "finetuned": True}, "pretraining_tp": 4}
NEUTRAL |= {"hidden_act": "swish", "use_cache": False, "attention_dropout": 0.5, "torch_dtype": "float16"}


@pytest.mark.parametrize("key", NEUTRAL)
def test_keys_without_effect(key):
    assert parse(**{key: NEUTRAL[key]}) == parse()


QUANTIZED: dict[str, dict[str, Any]] = {
    "awq": {"bits": 4, "group_size": 64},
    "gptq": {"bits": 4, "group_size": 64},
    "fp8": {},
    "compressed-tensors": {
        "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 64, "strategy": "group"}}},
    },
    "gguf": {"types": {"x": "Q4_0"}},
}
WITHOUT_TORCH = """
import sys
from pathlib import Path
from slurminfer.quant.checkpoint.config import read_config
from slurminfer.quant.checkpoint.files import stored_bytes
for model in map(Path, sys.argv[1:]):
    print(type(read_config(model).quantization).__name__, stored_bytes(model))
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""


def test_a_config_is_read_without_torch(tmp_path):
    for method, described in QUANTIZED.items():
        (tmp_path / method).mkdir()
        config = LLAMA | {"quantization_config": described | {"quant_method": method}}
        (tmp_path / method / "config.json").write_text(json.dumps(config))
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "plain/model.safetensors").write_bytes(b"12345")
    argv = [sys.executable, "-c", WITHOUT_TORCH, *(tmp_path / name for name in ("plain", *QUANTIZED))]
    read = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    assert read == ["NoneType 5", "AwqScheme 0", "GptqScheme 0", "Fp8Scheme 0", "CompressedTensorsScheme 0",
                    "GgufScheme 0"]  # fmt: skip


def test_every_scheme_that_is_parsed_has_a_format_that_reads_it():
    assert set(QUANTIZED) == set(SCHEMES)
    for method, described in QUANTIZED.items():
        scheme = SCHEMES[method](described, "config.json")
        assert type(make_format(scheme)).__name__ == type(scheme).__name__.replace("Scheme", "Format")
