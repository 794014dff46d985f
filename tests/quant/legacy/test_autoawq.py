"""AutoAWQ itself, on a small model: its checkpoints in our engine, and our packing in its unpacker."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from slurminfer.core.errors import CommandError
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.quant.checkpoint.awq import pack
from slurminfer.quant.legacy.autoawq import quantize
from slurminfer.quant.progress import silent

pytestmark = [pytest.mark.process, pytest.mark.download, pytest.mark.timeout(900)]

VOCABULARY, GROUP = 200, 64
TOKENS = random.Random(3).choices(range(VOCABULARY), k=40)

# Replaces every quantized layer of a checkpoint by what AutoAWQ computes with.
DEQUANTIZE = """
import sys
from safetensors.torch import load_file, save_file
from awq.utils.packing_utils import dequantize_gemm

source, target, group = sys.argv[1], sys.argv[2], int(sys.argv[3])
stored, dense = load_file(source), {}
for name, tensor in stored.items():
    prefix, _, kind = name.rpartition(".")
    if kind == "qweight":
        zeros, scales = stored[prefix + ".qzeros"], stored[prefix + ".scales"].float()
        dense[prefix + ".weight"] = dequantize_gemm(tensor, zeros, scales, 4, group).t().contiguous()
    elif kind not in ("qzeros", "scales"):
        dense[name] = tensor.float()
save_file(dense, target)
"""

UNPACK = """
import sys
from safetensors.torch import load_file, save_file
from awq.utils.packing_utils import reverse_awq_order, unpack_awq

words = load_file(sys.argv[1])["words"]
codes, _ = reverse_awq_order(*unpack_awq(words, words, 4), 4)
save_file({"codes": (codes & 15).contiguous()}, sys.argv[2])
"""


def make_model(path: Path) -> LlamaForCausalLM:
    """A random model whose rotary base is not the default, with inputs of very different weight."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        initializer_range=0.05,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(torch.randn(parameter.shape[1]).mul(0.5).exp())
    model.save_pretrained(path)
    return model


@pytest.fixture(scope="module")
def quantized(python, tmp_path_factory):
    """The model, the directory of its AWQ form, and what progress said."""
    directory = tmp_path_factory.mktemp("autoawq")
    model = make_model(directory / "model")
    (directory / "model/tokenizer.json").write_text("{}")
    choices = random.Random(1)
    samples = [choices.choices(range(VOCABULARY), k=64) for _ in range(8)]
    seen: list[tuple[str, int, int]] = []
    quantize(directory / "model", directory / "awq", samples, GROUP, lambda *said: seen.append(said), python)
    return model, directory / "awq", seen


def _logits(path: Path) -> torch.Tensor:
    """[tokens, vocabulary] of the native engine."""
    model = load_model(EngineOptions(model=path, dtype="float32", device="cpu", kv_cache_gib=0.01, threads=1))
    return model.forward([Chunk(TOKENS, 0, range(-(-len(TOKENS) // model.block_size)), len(TOKENS))])


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@torch.inference_mode()
def test_our_engine_computes_the_logits_of_autoawqs_own_dequantized_weights(quantized, run_legacy, tmp_path):
    model, path, seen = quantized
    assert seen == [("quantize", 1, 2), ("quantize", 2, 2)]
    run_legacy(DEQUANTIZE, path / "model.safetensors", tmp_path / "dense.safetensors", GROUP)
    reference = LlamaForCausalLM(model.config).eval()
    reference.load_state_dict(load_file(tmp_path / "dense.safetensors"))
    assert _distance(_logits(path), reference(torch.tensor([TOKENS])).logits[0]) < 1e-5


@torch.inference_mode()
def test_the_quantized_model_is_close_to_the_original(quantized):
    """AutoAWQ's search would leave the weights multiplied by its first candidate: a distance of 0.8."""
    model, path, _ = quantized
    assert _distance(_logits(path), model(torch.tensor([TOKENS])).logits[0]) < 0.5


def test_the_directory_is_a_model_of_its_own(quantized):
    _, path, _ = quantized
    config = json.loads((path / "config.json").read_text())
    assert config["rope_theta"] == 500.0
    said = config["quantization_config"]
    assert (said["quant_method"], said["bits"], said["group_size"], said["version"]) == ("awq", 4, GROUP, "gemm")
    assert (path / "tokenizer.json").read_text() == "{}"


def test_a_group_size_that_does_not_fit_is_autoawqs_own_complaint(quantized, python, tmp_path):
    _, path, _ = quantized
    with pytest.raises(CommandError, match=r"AutoAWQ failed: \w+: .*\b48\b"):
        quantize(path.parent / "model", tmp_path / "out", [[1, 2, 3]], 48, silent, python)
    assert not (tmp_path / "out").exists()


def test_autoawq_unpacks_what_we_pack(run_legacy, tmp_path):
    codes = torch.randint(0, 16, (37, 72), dtype=torch.uint8)
    save_file({"words": pack(codes)}, tmp_path / "packed.safetensors")
    run_legacy(UNPACK, tmp_path / "packed.safetensors", tmp_path / "unpacked.safetensors")
    assert torch.equal(load_file(tmp_path / "unpacked.safetensors")["codes"].to(torch.uint8), codes)
