"""Which files of a model directory count."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from slurminfer.core.errors import CorruptModelError, ModelNotFoundError
from slurminfer.quant.checkpoint.config import read_config
from slurminfer.quant.checkpoint.files import stored_bytes, stores_tensor, weight_files
from slurminfer.quant.checkpoint.weights import Weights

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 4, "hidden_size": 2, "intermediate_size": 2,
    "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8, "tie_word_embeddings": True,
}  # fmt: skip
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def write(directory, **files):
    """A directory with the config above and safetensors files of those tensors, each all of one number."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG))
    for name, tensors in files.items():
        values = {tensor: torch.full((4, 2), float(value)) for tensor, value in tensors.items()}
        save_file(values, directory / f"{name}.safetensors")


def write_index(directory, **shards):
    content = {"weight_map": {tensor: f"{name}.safetensors" for name, names in shards.items() for tensor in names}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(content))


def test_an_index_beside_the_whole_file_is_passed_over(tmp_path):
    write(tmp_path, model={EMBEDDING: 1}, old={EMBEDDING: 2})
    write_index(tmp_path, old=[EMBEDDING], away=["x"])
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]
    assert Weights(tmp_path, torch.float32).read(EMBEDDING, 4, 2).unique().tolist() == [1.0]
    assert stored_bytes(tmp_path) == (tmp_path / "model.safetensors").stat().st_size


def test_shards_that_the_index_does_not_name_do_not_count(tmp_path):
    write(tmp_path, one={EMBEDDING: 1}, two={HEAD: 2}, three={"x": 3})
    write_index(tmp_path, one=[EMBEDDING], two=[HEAD])
    assert [path.name for path in weight_files(tmp_path)] == ["one.safetensors", "two.safetensors"]
    assert stores_tensor(tmp_path, HEAD) and not stores_tensor(tmp_path, "x")


def test_no_tensors(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"neither model\.safetensors nor"):
        weight_files(tmp_path)
    assert not stores_tensor(tmp_path, HEAD)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": []}', '{"weight_map": {"x": 3}}', "[" * 5000])
def test_a_damaged_index_is_named(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CorruptModelError, match=r"model\.safetensors\.index\.json"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"1234567", b"\xff" * 8, b"\x08" + b"\0" * 7 + b"[       ", b"\x02" + b"\0" * 7 + b"[]"]
)
def test_a_damaged_header_is_named(tmp_path, content):
    write(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CorruptModelError, match=r"model\.safetensors is truncated"):
        read_config(tmp_path)


def test_a_head_of_its_own_counts_though_config_ties_it(tmp_path):
    write(tmp_path / "tied", model={EMBEDDING: 1})
    write(tmp_path / "own", model={EMBEDDING: 1, HEAD: 2})
    write(tmp_path / "sharded", one={EMBEDDING: 1}, two={HEAD: 2})
    write_index(tmp_path / "sharded", one=[EMBEDDING], two=[HEAD])
    ties = {name: read_config(tmp_path / name).tie_word_embeddings for name in ("tied", "own", "sharded")}
    assert ties == {"tied": True, "own": False, "sharded": False}


@pytest.mark.slow
@pytest.mark.parametrize("differs", [True, False])
def test_a_tied_model_with_a_head_computes_what_transformers_computes(tmp_path, differs):
    from transformers import AutoModelForCausalLM

    from slurminfer.nodes.native.model.loading import load_model
    from slurminfer.nodes.native.model.step import Chunk
    from slurminfer.nodes.native.options import EngineOptions

    from ...support.random_models import SMALL, write_random_model

    shape = {"vocab_size": 50, "num_hidden_layers": 1, "max_position_embeddings": 64, "tie_word_embeddings": True}
    write_random_model(tmp_path, "llama", SMALL | shape)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[HEAD] = tensors[EMBEDDING].clone() + differs * torch.randn(
        50, 64, generator=torch.Generator().manual_seed(1)
    )
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tokens = list(range(9))
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(tmp_path)(torch.tensor([tokens])).logits[0]
    runner = load_model(EngineOptions(model=tmp_path, dtype="float32", kv_cache_gib=0.01, threads=1))
    found = runner.forward([Chunk(tokens, 0, range(1), num_logits=len(tokens))])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    shutil.rmtree(tmp_path)
