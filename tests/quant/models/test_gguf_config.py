import numpy as np
import pytest

from slurminfer.core.errors import CorruptModelError, UnsupportedModelError
from slurminfer.quant.gguf.config import generation_config, model_config
from slurminfer.quant.gguf.reader import GgufFile


@pytest.fixture
def configured(write_gguf):
    """config.json of a small model of that architecture, with these metadata."""

    def run(arch="llama", **options):
        return model_config(GgufFile(write_gguf(arch, **options)[0]), "float16")

    return run


@pytest.mark.parametrize(
    ("arch", "architecture"),
    [("llama", "LlamaForCausalLM"), ("qwen2", "Qwen2ForCausalLM"), ("qwen3", "Qwen3ForCausalLM")],
)
def test_config_says_what_the_metadata_say(configured, arch, architecture):
    config = configured(arch)
    assert config["architectures"] == [architecture] and config["model_type"] == arch
    assert config["vocab_size"] == 265
    assert (config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]) == (64, 96, 2)
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (4, 2, 16)
    assert (config["rms_norm_eps"], config["rope_theta"], config["rope_scaling"]) == (1e-05, 10000.0, None)
    assert (config["max_position_embeddings"], config["torch_dtype"]) == (128, "float16")
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 0, 0)


def test_key_length_is_the_head_dimension(configured):
    assert configured(metadata={"llama.attention.key_length": 32})["head_dim"] == 32


def test_keys_and_values_of_different_lengths_are_unsupported(configured):
    lengths = {"llama.attention.key_length": 32, "llama.attention.value_length": 16}
    with pytest.raises(UnsupportedModelError, match="keys of 32 and values of 16"):
        configured(metadata=lengths)


def test_yarn_is_translated(configured):
    prefix = "qwen2.rope.scaling."
    keys = {prefix + "type": "yarn", prefix + "factor": 4.0, prefix + "original_context_length": 32}
    scaling = configured("qwen2", metadata=keys)["rope_scaling"]
    assert scaling == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


def test_linear_scaling_is_translated(configured):
    keys = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    assert configured(metadata=keys)["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"scaling.factor": 2.0, "scale_linear": 4.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"scaling.type": "none", "scaling.factor": 4.0, "scale_linear": 4.0}, None),
        ({"scaling.type": "linear", "scaling.factor": 1.0}, None),
        ({"scaling.attn_factor": 1.0, "scaling.finetuned": True}, None),
        (
            {"scaling.type": "yarn", "scaling.factor": 4.0, "scaling.yarn_beta_fast": 8.0},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "beta_fast": 8.0},
        ),
    ],
)
def test_rope_scaling_is_what_llama_cpp_takes_it_for(configured, keys, expected):
    assert configured(metadata={f"llama.rope.{key}": value for key, value in keys.items()})["rope_scaling"] == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.scaling.type", "longrope"),
        ("rope.scaling.yarn_log_multiplier", 0.1),
        ("rope.scaling.attn_factor", 0.5),
        ("rope.scaling.sharpness", 1.0),
        ("rope.dimension_count", 8),
        ("attention.causal", False),
        ("attention.sliding_window", 32),
        ("attention.sharpness", 1),
        ("expert_count", 8),
        ("logit_scale", 0.5),
        ("anything.new", "x"),
    ],
)
def test_a_key_that_would_change_numbers_is_refused_by_name(configured, key, value):
    with pytest.raises(UnsupportedModelError, match=str(value)):
        configured(metadata={f"llama.{key}": value})


def test_keys_that_switch_nothing_on_are_passed_over(configured):
    neutral = {
        "attention.causal": True,
        "expert_count": 0,
        "logit_scale": 1.0,
        "vocab_size": 3,
        "rope.dimension_count": 16,
    }
    assert configured(metadata={f"llama.{key}": value for key, value in neutral.items()}) == configured()


def test_rope_that_is_scaled_twice_is_refused(configured):
    with pytest.raises(UnsupportedModelError, match="twice"):
        configured(metadata={"llama.rope.scale_linear": 2.0}, extra={"rope_freqs.weight": llama31_divisors(8.0)})


def llama31_divisors(factor: float) -> np.ndarray:
    """Frequency by frequency, as Meta's reference code has it."""
    divisors = []
    for i in range(8):
        wavelength = 2 * np.pi * 500000.0 ** (2 * i / 16)
        smooth = (8192 / wavelength - 1) / (4 - 1)
        if wavelength < 8192 / 4:
            divisors.append(1.0)
        elif wavelength > 8192:
            divisors.append(factor)
        else:
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_found_again_from_its_divisors(configured, factor):
    config = configured(
        metadata={"llama.rope.freq_base": 500000.0}, extra={"rope_freqs.weight": llama31_divisors(factor)}
    )
    assert config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def test_other_divisors_than_llama3s_are_unsupported(configured):
    with pytest.raises(UnsupportedModelError, match="factors that are not Llama 3's"):
        configured(extra={"rope_freqs.weight": np.linspace(1, 8, 8, dtype=np.float32)})


def test_an_unknown_architecture_lists_the_supported(write_gguf):
    file = GgufFile(write_gguf("gemma3")[0])
    with pytest.raises(UnsupportedModelError, match="'gemma3'; supported: llama, qwen2, qwen3"):
        model_config(file, "float16")


@pytest.mark.parametrize(
    ("value", "complaint"), [(None, "has no llama.block_count"), ("two", "'two' is not of type int")]
)
def test_missing_or_mistyped_metadata_are_corrupt(configured, value, complaint):
    with pytest.raises(CorruptModelError, match=complaint):
        configured(metadata={"llama.block_count": value})


def test_generation_ends_at_the_end_of_text_and_at_the_templates_end_of_turn(write_gguf):
    template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    config = generation_config(GgufFile(write_gguf(metadata={"tokenizer.chat_template": template})[0]))
    assert config == {"bos_token_id": 1, "eos_token_id": [0, 2], "pad_token_id": 0}


def test_generation_ends_at_the_end_of_turn_that_the_metadata_name(write_gguf):
    config = generation_config(GgufFile(write_gguf(metadata={"tokenizer.ggml.eot_token_id": 2})[0]))
    assert config["eos_token_id"] == [0, 2]
