"""Weights are read from one file or many; damage is named by file and tensor."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from slurminfer.core.errors import CorruptModelError, ModelNotFoundError

FILE = "model.safetensors"
PROMPT = list(range(20))


def test_sharded_files_make_the_same_model(make, load, drive, tmp_path):
    make(tmp_path / "one", "qwen3")
    make(tmp_path / "many", "qwen3", max_shard_size="50KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    one, many = (drive(load(tmp_path / name)) for name in ("one", "many"))
    assert one.finish(one.add(PROMPT), 16) == many.finish(many.add(PROMPT), 16)


def test_a_file_in_another_dtype_is_cast(make, load, drive, expected, tmp_path):
    reference = make(tmp_path, "llama").bfloat16()
    reference.save_pretrained(tmp_path)
    driver = drive(load(tmp_path))
    assert driver.finish(driver.add(PROMPT), 16) == expected(reference.float(), PROMPT, 16)[0]


@pytest.mark.parametrize("keep", [0, 4, 1000, -1000])
def test_a_truncated_file_is_named(make, load, tmp_path, keep):
    make(tmp_path, "llama")
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:keep])
    with pytest.raises(CorruptModelError, match=r"model\.safetensors is truncated"):
        load(tmp_path)


def test_a_missing_tensor_is_named(make, load, tmp_path):
    make(tmp_path, "llama")
    tensors = load_file(tmp_path / FILE)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / FILE)
    with pytest.raises(CorruptModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        load(tmp_path)


def test_a_wrong_shape_is_named_with_both_shapes(make, load, tmp_path):
    make(tmp_path, "llama")
    tensors = load_file(tmp_path / FILE)
    tensors["model.norm.weight"] = torch.ones(63)
    save_file(tensors, tmp_path / FILE)
    with pytest.raises(CorruptModelError, match=r"model\.norm\.weight has shape \(63,\), config\.json says \(64,\)"):
        load(tmp_path)


def test_a_missing_shard_is_named(make, load, tmp_path):
    make(tmp_path, "llama", max_shard_size="50KB")
    shard = max(tmp_path.glob("model-*.safetensors"))
    shard.unlink()
    with pytest.raises(CorruptModelError, match=shard.name):
        load(tmp_path)


@pytest.mark.parametrize("index", ["{", "{}", '{"weight_map": 3}'])
def test_a_damaged_index_is_named(make, load, tmp_path, index):
    make(tmp_path, "llama", max_shard_size="50KB")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CorruptModelError, match=r"model\.safetensors\.index\.json"):
        load(tmp_path)


def test_an_index_may_not_lead_out_of_the_directory(make, load, tmp_path):
    make(tmp_path / "model", "llama")
    (tmp_path / "model" / FILE).rename(tmp_path / FILE)
    index = {"weight_map": {"model.norm.weight": f"../{FILE}"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CorruptModelError, match="outside"):
        load(tmp_path / "model")


def test_a_directory_without_weights(make, load, tmp_path):
    make(tmp_path, "llama")
    (tmp_path / FILE).unlink()
    with pytest.raises(ModelNotFoundError, match=r"neither model\.safetensors nor"):
        load(tmp_path)
