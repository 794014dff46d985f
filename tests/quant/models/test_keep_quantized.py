"""GGUF files whose linear layers stay in their blocks, and what the native engine computes with them."""

import json
import re

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Q
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from slurminfer.cli import app
from slurminfer.core.errors import CorruptModelError, ModelError, UnsupportedModelError
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.serve.spec import with_models_found
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.quant.models import resolve

pytestmark = pytest.mark.slow

PROMPT = [(5 * i * i + i) % 256 for i in range(24)]
KINDS = {"q_proj": Q.Q4_1, "k_proj": Q.Q8_0, "v_proj": Q.Q4_0, "down_proj": Q.Q4_1, "lm_head": Q.Q8_0}


def kind_of(name: str, weight: np.ndarray) -> Q:
    return Q.F32 if weight.ndim == 1 else KINDS.get(name.split(".")[-2], Q.F16)


def logits(model, prompt=PROMPT):
    runner = load_model(EngineOptions(model=model, dtype="float32", device="cpu", threads=1, kv_cache_gib=0.5))
    blocks = range(-(-len(prompt) // runner.block_size))
    return runner.forward([Chunk(prompt, 0, blocks, len(prompt))])


def dense(directory, target, weights):
    """The model in `directory` with what `write_gguf` wrote, dequantized; float32 tensors are float16 there."""
    target.mkdir()
    config = json.loads((directory / "config.json").read_text())
    del config["quantization_config"]
    (target / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    kinds = {name: kind_of(name, weight) for name, weight in weights.items()}
    values = {name: dequantize(quantize(weight, kinds[name]), kinds[name]) for name, weight in weights.items()}
    tensors = {name: torch.from_numpy(value).float() for name, value in values.items()}
    tensors |= {name: tensor.half().float() for name, tensor in tensors.items() if kinds[name] == Q.F32}
    save_file(tensors, target / "model.safetensors")
    return target


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_engine_computes_with_the_file_s_own_weights(home, write_gguf, tmp_path, arch, tied):
    path, weights = write_gguf(arch, tied=tied, types=kind_of)
    kept = resolve(str(path), quantization="gguf")
    types = json.loads((kept / "config.json").read_text())["quantization_config"]["types"]
    expected = {name.removesuffix(".weight"): kind_of(name, weight).name for name, weight in weights.items()}
    assert types == {layer: kind for layer, kind in expected.items() if kind.startswith("Q")}
    stored = load_file(kept / "model.safetensors")
    assert {name.removesuffix(".blocks") for name in stored if name.endswith(".blocks")} == set(types)
    assert ("lm_head.blocks" in stored) != tied
    torch.testing.assert_close(logits(kept), logits(dense(kept, tmp_path / "dense", weights)), rtol=1e-4, atol=1e-3)


def test_kept_and_converted_lie_beside_each_other(home, write_gguf):
    path, _ = write_gguf()
    converted, kept = resolve(str(path)), resolve(str(path), quantization="gguf")
    assert kept.name == f"{converted.name}-gguf" and kept.parent == converted.parent
    assert resolve(str(kept), quantization="gguf") == kept
    with pytest.raises(ModelError, match=re.escape(f"'gguf', but the weights in {converted} are not quantized")):
        resolve(str(converted), quantization="gguf")


def test_layers_that_cannot_keep_their_blocks_are_told_of(home, write_gguf, capfd):
    path, _ = write_gguf(
        types=lambda name, weight: Q.Q5_0 if "up_proj" in name or "down_proj" in name else kind_of(name, weight)
    )
    done = CliRunner().invoke(app, ["models", "fetch", str(path), "--keep-quantized"])
    said = (
        "quantization = 'gguf': 6 of 10 linear layers keep the file's blocks; 4 (Q5_0) have no kernel and are 16 bits "
        "wide: 0 MB instead of 0, which every token reads"
    )
    assert said in done.stderr
    kept = resolve(str(path), quantization="gguf")
    load_model(EngineOptions(model=kept, device="cpu", threads=1, kv_cache_gib=0.1))
    assert said in capfd.readouterr().err


def test_a_file_without_such_layers_lists_what_it_has(home, write_gguf):
    path, _ = write_gguf(types=lambda name, weight: Q.F32 if weight.ndim == 1 else Q.BF16)
    with pytest.raises(UnsupportedModelError, match=r"no linear layers of type Q4_0, Q4_1, Q8_0 .* they are BF16"):
        resolve(str(path), quantization="gguf")
    assert not list(home.glob("tiny*"))


def test_scales_that_are_not_numbers_are_corrupt(home, write_gguf):
    def spoil(weights):
        weights["model.layers.0.mlp.down_proj.weight"][0, 0] = np.inf

    with np.errstate(all="ignore"):
        path, _ = write_gguf(edit=spoil)
    with pytest.raises(CorruptModelError, match=r"blk\.0\.ffn_down\.weight has values that are not finite"):
        resolve(str(path), quantization="gguf")


def test_a_spec_and_the_command_line_ask_for_it(home, write_gguf):
    path, _ = write_gguf()
    spec = parse_spec(f'name = "a"\n[model]\npath = "{path}"\nquantization = "gguf"\n[[pool]]')
    found = with_models_found(spec).model
    assert found is not None
    done = CliRunner().invoke(app, ["models", "fetch", str(path), "--keep-quantized"])
    assert done.stdout.split()[-1] == found.path == str(resolve(str(path), quantization="gguf"))


def test_a_spec_that_asks_for_another_kind_is_refused_before_anything_runs(home, write_gguf):
    path, _ = write_gguf()
    spec = parse_spec(f'name = "a"\n[model]\npath = "{path}"\nquantization = "awq"\n[[pool]]')
    with pytest.raises(ModelError, match=r"quantization = 'awq', but the weights in .* are not quantized"):
        with_models_found(spec)


@pytest.mark.network
def test_the_demo_model_without_loss(demo_model):
    """Its true weights are Q4_1: in float16 they are rounded, in their blocks they are not."""
    kept = resolve("demo", quantization="gguf")
    config = json.loads((kept / "config.json").read_text())
    assert set(config["quantization_config"]["types"].values()) == {"Q4_1"}
    exact, rounded = logits(kept, PROMPT), logits(demo_model, PROMPT)
    assert 0 < (exact - rounded).norm() < 1e-3 * rounded.norm()
    assert torch.equal(exact.argmax(-1), rounded.argmax(-1))
