import json

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Q
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file

from slurminfer.core.errors import CorruptModelError, UnsupportedModelError
from slurminfer.quant.gguf.convert import convert
from slurminfer.quant.gguf.weights import encode
from slurminfer.quant.progress import silent
from slurminfer.quant.shards import TensorInfo, plan_shards, write_shards


@pytest.fixture
def converted(tmp_path):
    """Converts a GGUF file; returns config.json and the tensors."""
    (tmp_path / "model").mkdir()

    def run(path):
        convert(path, tmp_path / "model", silent)
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        return config, load_file(tmp_path / "model" / "model.safetensors")

    return run


def stored(weight, kind):
    """What remains of a weight after quantization."""
    return dequantize(quantize(weight, kind), kind)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_comes_back_under_its_name_and_in_its_row_order(write_gguf, converted, arch, tied):
    kinds = {}

    def kind(name, weight):
        part = name.split(".")[-2]
        kinds[name] = Q.F32 if weight.ndim == 1 else {"q_proj": Q.Q8_0, "k_proj": Q.Q4_0}.get(part, Q.F16)
        return kinds[name]

    path, weights = write_gguf(arch, tied=tied, types=kind)
    config, tensors = converted(path)
    assert config["torch_dtype"] == "float16" and config["tie_word_embeddings"] == tied
    assert tensors.keys() == weights.keys()
    for name, weight in weights.items():
        assert tensors[name].dtype == torch.float16
        expected = stored(weight, kinds[name]).astype(np.float16)
        np.testing.assert_array_equal(tensors[name].numpy(), expected, err_msg=name)


def test_float32_weights_stay_as_they_are(write_gguf, converted):
    path, weights = write_gguf(types=lambda name, weight: Q.F32)
    config, tensors = converted(path)
    assert config["torch_dtype"] == "float32"
    assert all(np.array_equal(tensors[name].numpy(), weights[name]) for name in weights)


def test_bfloat16_weights_stay_bfloat16(write_gguf, converted):
    path, weights = write_gguf(types=lambda name, weight: Q.F32 if weight.ndim == 1 else Q.BF16)
    config, tensors = converted(path)
    assert config["torch_dtype"] == "bfloat16"
    assert all(torch.equal(tensors[name], torch.from_numpy(weights[name]).bfloat16()) for name in weights)


def test_a_weight_beyond_float16_makes_the_model_bfloat16(write_gguf, converted):
    def enlarge(weights):
        weights["model.norm.weight"][3] = 1e5

    config, tensors = converted(write_gguf(edit=enlarge)[0])
    assert config["torch_dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert tensors["model.norm.weight"][3] == torch.tensor(1e5).bfloat16()


def test_bfloat16_rounding_is_torchs():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    values = np.concatenate(
        [values[np.isfinite(values)], np.array([1.00390625, 1.01171875, -0.0, 3e38, 1e-40], np.float32)]
    )
    bits = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    np.testing.assert_array_equal(encode(values, "bfloat16"), bits)


def test_a_missing_tensor_is_named(write_gguf, converted):
    path, _ = write_gguf(edit=lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(CorruptModelError, match=r"lacks 1 tensors: blk\.1\.ffn_up\.weight"):
        converted(path)


def test_a_tensor_of_no_known_use_is_named(write_gguf, converted):
    path, _ = write_gguf(extra={"blk.0.ffn_gate_inp.weight": np.zeros((2, 64), np.float32)})
    with pytest.raises(UnsupportedModelError, match=r"blk\.0\.ffn_gate_inp\.weight"):
        converted(path)


def test_an_unknown_quantization_lists_the_supported(write_gguf, converted):
    def remove(weights):
        del weights["model.norm.weight"]

    path, _ = write_gguf(edit=remove, extra={"output_norm.weight": np.zeros(64, np.int32)})
    with pytest.raises(UnsupportedModelError, match=r"type I32; supported: F32, F16, BF16, Q4_0"):
        converted(path)


def test_heads_that_do_not_fit_the_rows_are_corrupt(write_gguf, converted):
    with pytest.raises(CorruptModelError, match=r"attn_q\.weight has 64 rows, expected 3 x 16"):
        converted(write_gguf(metadata={"llama.attention.head_count": 3, "llama.attention.key_length": 16})[0])


def test_weights_that_are_not_numbers_are_corrupt(write_gguf, converted):
    def spoil(weights):
        weights["model.norm.weight"][0] = np.nan

    with pytest.raises(CorruptModelError, match=r"output_norm\.weight has values that are not finite"):
        converted(write_gguf(edit=spoil)[0])


def test_shards_keep_the_order_and_the_limit():
    tensors = {name: TensorInfo("float16", (size,)) for name, size in {"a": 4, "b": 4, "c": 9, "d": 1}.items()}
    assert plan_shards(tensors, 16) == {
        "model-00001-of-00003.safetensors": ["a", "b"],
        "model-00002-of-00003.safetensors": ["c"],
        "model-00003-of-00003.safetensors": ["d"],
    }


def test_sharded_files_and_their_index_hold_all_tensors(tmp_path):
    values = {name: np.full((2, 3), i, np.float32) for i, name in enumerate("abc")}
    reports = []
    write_shards(tmp_path, {name: TensorInfo("float32", (2, 3)) for name in values}, values.__getitem__,
                 lambda *report: reports.append(report), limit=48)  # fmt: skip
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 72
    for name, value in values.items():
        tensors = load_file(tmp_path / index["weight_map"][name])
        np.testing.assert_array_equal(tensors[name].numpy(), value)
    assert reports == [("convert", 24, 72), ("convert", 48, 72), ("convert", 72, 72)]
