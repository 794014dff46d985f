"""A whole model: the checkpoint is what the format says, whatever happened on the way to it."""

import hashlib
import json
import os
import subprocess
import time
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file

from slurminfer.core.errors import EngineError, ModelError, ModelNotFoundError, UnsupportedModelError, UsageError
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.quant.awq import quantize as module
from slurminfer.quant.awq.layer import quantize_layer
from slurminfer.quant.awq.options import AwqOptions, choose_group_size
from slurminfer.quant.awq.quantize import quantize
from slurminfer.quant.awq.workspace import WHOLE, WorkShare, Workspace
from slurminfer.quant.checkpoint.config import read_config
from slurminfer.quant.checkpoint.embedding import Pooling, read_embedding
from slurminfer.quant.checkpoint.tensors import LINEARS
from slurminfer.quant.checkpoint.weights import Weights
from slurminfer.quant.progress import silent

from .processes import Quantization

pytestmark = pytest.mark.process

PROMPT = list(range(40, 60))


def digest(directory):
    # The report has seconds in it.
    files = sorted(path for path in directory.iterdir() if path.name != "quantization.json")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@torch.inference_mode()
def native_logits(path):
    runner = load_model(
        EngineOptions(model=path, dtype="float32", device="cpu", kv_cache_gib=0.02, block_size=32, threads=1)
    )
    return runner.forward([Chunk(PROMPT, 0, [0], len(PROMPT))])


@torch.inference_mode()
def with_dequantized_weights(reference, checkpoint):
    """transformers' model with what the checkpoint says in place of its own tensors."""
    config = read_config(checkpoint)
    weights = Weights(checkpoint, torch.float32, config.quantization)
    for name, parameter in reference.named_parameters():
        prefix = name.removesuffix(".weight")
        if f"{prefix}.qweight" in weights:
            parameter.copy_(weights.linear(prefix, *parameter.shape).dequantize())
        else:
            parameter.copy_(weights.read(name, *parameter.shape))
    return reference


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
        ("llama", {"num_key_value_heads": 4}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 32}),
    ],
)
def test_logits_are_those_of_the_dequantized_weights(make, tmp_path, options, kind, changes):
    reference = make(tmp_path / "model", kind, **changes)
    before = reference(torch.tensor([PROMPT])).logits[0].detach()
    quantize(tmp_path / "model", tmp_path / "out", options, silent)
    expected = with_dequantized_weights(reference, tmp_path / "out")(torch.tensor([PROMPT])).logits[0].detach()
    torch.testing.assert_close(native_logits(tmp_path / "out"), expected, atol=2e-3, rtol=2e-3)
    assert not torch.allclose(expected, before, atol=2e-3)  # or nothing was shown


def test_an_embedding_model_without_lm_head_keeps_its_pooling(make, tmp_path, options):
    make(tmp_path / "whole", "qwen3", head_dim=32).base_model.save_pretrained(tmp_path / "model")
    for path in (tmp_path / "whole").glob("tokenizer*"):
        path.rename(tmp_path / "model" / path.name)
    (tmp_path / "model/modules.json").write_text(
        json.dumps([{"type": "m.Transformer", "path": ""}, {"type": "m.Pooling", "path": "1_Pooling"}])
    )
    (tmp_path / "model/1_Pooling").mkdir()
    (tmp_path / "model/1_Pooling/config.json").write_text('{"pooling_mode": "cls"}')
    quantize(tmp_path / "model", tmp_path / "out", options, silent)
    assert read_embedding(tmp_path / "out").pooling is Pooling.CLS
    assert not read_config(tmp_path / "out").has_head
    assert "lm_head.weight" not in load_file(tmp_path / "out/model.safetensors")
    before, after = (pooled_states(tmp_path / name) for name in ("model", "out"))
    assert 0.9 < torch.cosine_similarity(before, after) < 1


@torch.inference_mode()
def pooled_states(path):
    runner = load_model(
        EngineOptions(model=path, dtype="float32", device="cpu", kv_cache_gib=0.02, block_size=32, threads=1)
    )
    runner.begin([Chunk(PROMPT, 0, [0], 0, True, Pooling.MEAN)])
    return runner.finish().pooled


def test_the_files_are_what_other_programs_expect(make, tmp_path, options):
    make(tmp_path / "model")
    (tmp_path / "model" / "LICENSE").write_text("free")
    quantize(tmp_path / "model", tmp_path / "out", options, silent)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["quantization_config"] == {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": ["lm_head"],
    }
    assert config["torch_dtype"] == "float16" and "dtype" not in config
    tensors = load_file(tmp_path / "out/model.safetensors")
    found = {
        name: (tuple(tensors[f"model.layers.0.mlp.down_proj.{name}"].shape)) for name in ("qweight", "qzeros", "scales")
    }
    assert found == {"qweight": (96, 8), "qzeros": (3, 8), "scales": (3, 64)}
    assert {t.dtype for name, t in tensors.items() if name.endswith(("qweight", "qzeros"))} == {torch.int32}
    assert {t.dtype for name, t in tensors.items() if not name.endswith(("qweight", "qzeros"))} == {torch.float16}
    assert "model.layers.0.mlp.down_proj.weight" not in tensors
    assert (tmp_path / "out/LICENSE").read_text() == "free" and (tmp_path / "out/tokenizer.json").exists()
    report = json.loads((tmp_path / "out/quantization.json").read_text())
    assert [layer["index"] for layer in report["layers"]] == [0, 1, 2, 3]
    assert set(report["layers"][0]["linears"]) == set(LINEARS)
    assert sorted(os.listdir(tmp_path)) == ["model", "out", "text.txt"]  # no trace of the work


def test_a_bfloat16_model_stays_one(make, tmp_path, options):
    make(tmp_path / "float").bfloat16().save_pretrained(tmp_path / "model")
    (tmp_path / "float/tokenizer.json").rename(tmp_path / "model/tokenizer.json")
    quantize(tmp_path / "model", tmp_path / "out", options, silent)
    tensors = load_file(tmp_path / "out/model.safetensors")
    assert tensors["model.layers.0.input_layernorm.weight"].dtype == torch.bfloat16
    assert tensors["model.layers.0.mlp.up_proj.scales"].dtype == torch.float16


def test_a_sharded_model_gives_the_same(make, tmp_path, options):
    make(tmp_path / "one")
    make(tmp_path / "many", save={"max_shard_size": "60KB"})
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    for name in ("one", "many"):
        quantize(tmp_path / name, tmp_path / f"{name}-awq", options, silent)
    assert digest(tmp_path / "one-awq") == digest(tmp_path / "many-awq")


@pytest.fixture
def whole(make, tmp_path, options):
    """A model and the checkpoint of a run that nothing disturbed."""
    make(tmp_path / "model")
    quantize(tmp_path / "model", tmp_path / "whole", options, silent)
    return digest(tmp_path / "whole")


@pytest.fixture
def start(tmp_path, options):
    """Quantizes the model into "out" in another process, as `Quantization` says; the test leaves none behind."""
    started = []

    def start(part=WHOLE, stuck_after=None):
        started.append(Quantization(tmp_path / "model", tmp_path / "out", options, part, stuck_after))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_killed_and_started_again_it_writes_the_same_bytes(whole, start, tmp_path, options, monkeypatch, layers):
    out = tmp_path / "out"
    process = start(stuck_after=layers)
    process.wait_until_stuck()
    process.kill()
    assert Workspace(out).layers_done() == layers and not out.exists()
    counting = Mock(wraps=quantize_layer)
    monkeypatch.setattr(module, "quantize_layer", counting)
    heard = []
    quantize(tmp_path / "model", out, options, lambda stage, done, total: heard.append((stage, done)))
    assert counting.call_count == 4 - layers  # finished layers are not computed again
    assert next(done for stage, done in heard if stage == "quantize") == layers
    assert digest(out) == whole


@pytest.mark.parametrize("count", [2, 3, 6])
def test_parts_write_the_same_bytes_together(whole, start, tmp_path, count):
    processes = [start(WorkShare(index, count)) for index in reversed(range(count))]
    assert [process.wait() for process in processes] == [0] * count
    assert digest(tmp_path / "out") == whole


def test_a_killed_part_goes_on_while_the_others_wait(whole, start, tmp_path):
    out = tmp_path / "out"
    first, second = start(WorkShare(0, 2)), start(WorkShare(1, 2), stuck_after=1)
    second.wait_until_stuck()
    while Workspace(out).layers_done() < 3:
        assert first.is_running()
        time.sleep(0.01)
    second.kill()
    assert first.is_running() and not out.exists()
    assert start(WorkShare(1, 2)).wait() == 0
    assert first.wait() == 0
    assert digest(out) == whole


def test_two_cannot_do_the_same(make, start, tmp_path, options):
    make(tmp_path / "model")
    other = start(stuck_after=0)
    other.wait_until_stuck()
    with pytest.raises(ModelError, match=rf"another process \({other.pid} on .*\) is quantizing into"):
        quantize(tmp_path / "model", tmp_path / "out", options, silent)


def test_unfinished_work_of_another_kind_is_not_gone_on_with(make, tmp_path, options):
    make(tmp_path / "model")
    Workspace(tmp_path / "out").open({"version": 1, "samples": 9})
    with pytest.raises(ModelError, match=r"unfinished work with another .*group_size.*samples.*: finish it as it was"):
        quantize(tmp_path / "model", tmp_path / "out", options, silent)


def test_an_existing_output_is_left_alone(make, tmp_path, options):
    make(tmp_path / "model")
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="exists already"):
        quantize(tmp_path / "model", tmp_path / "out", options, silent)
    assert not (tmp_path / "out/model.safetensors").exists()


def test_a_damaged_layer_is_named(make, tmp_path, options, monkeypatch):
    make(tmp_path / "model")
    monkeypatch.setattr(module, "export", lambda *args: None)
    quantize(tmp_path / "model", tmp_path / "out", options, silent)
    monkeypatch.undo()
    layer = tmp_path / ".out.quantizing/layers/00002"
    layer.write_bytes(layer.read_bytes()[:100])
    with pytest.raises(ModelError, match="layers/00002 is damaged"):
        quantize(tmp_path / "model", tmp_path / "out", options, silent)
    layer.unlink()
    with pytest.raises(ModelError, match="lacks the inputs of layer 2"):
        quantize(tmp_path / "model", tmp_path / "out", options, silent)


def test_a_group_that_does_not_fit_is_refused_with_those_that_do(make, tmp_path, options):
    make(tmp_path / "model", hidden_size=192, intermediate_size=320, num_attention_heads=6)
    config = read_config(tmp_path / "model")
    assert choose_group_size(config, None) == 64
    with pytest.raises(
        UnsupportedModelError,
        match=r"group_size = 128 does not divide the 192 inputs of self_attn\.q_proj; for this model: 32, 64",
    ):
        quantize(tmp_path / "model", tmp_path / "out", replace(options, group_size=128), silent)


def test_a_model_that_no_group_fits(make, tmp_path, options):
    make(tmp_path / "model", hidden_size=80, num_attention_heads=2)
    with pytest.raises(UnsupportedModelError, match="80 inputs: none of the groups of 32, 64, 128 fits"):
        quantize(tmp_path / "model", tmp_path / "out", options, silent)


def test_a_quantized_model_is_not_quantized_again(make, tmp_path, options):
    make(tmp_path / "model")
    quantize(tmp_path / "model", tmp_path / "out", options, silent)
    with pytest.raises(UnsupportedModelError, match="quantized already"):
        quantize(tmp_path / "out", tmp_path / "again", options, silent)


@pytest.mark.parametrize(
    "values", [{"group_size": 48}, {"samples": 0}, {"sample_length": -1}, {"threads": 0}], ids=lambda v: next(iter(v))
)
def test_senseless_options(values):
    ((key, value),) = values.items()
    with pytest.raises(UsageError, match=f"{key} = {value}: expected"):
        AwqOptions(**values)


def test_too_little_text_says_how_much_there_is(make, tmp_path, options):
    make(tmp_path / "model")
    with pytest.raises(ModelError, match=r"has 256 tokens, too few for 9 samples of 32: it gives 8 of that length"):
        quantize(tmp_path / "model", tmp_path / "out", replace(options, samples=9), silent)


def test_samples_longer_than_the_model_takes(make, tmp_path, options):
    make(tmp_path / "model")
    with pytest.raises(ModelError, match="sample_length = 129: the model has max_position_embeddings = 128"):
        quantize(tmp_path / "model", tmp_path / "out", replace(options, samples=1, sample_length=129), silent)


def test_a_text_that_is_not_there(make, tmp_path, options):
    make(tmp_path / "model")
    with pytest.raises(ModelNotFoundError, match="expected a file, or one of c4, wiki, tiny"):
        quantize(tmp_path / "model", tmp_path / "out", replace(options, calibration="pile"), silent)


def test_too_little_memory_is_said_before_anything_is_done(make, tmp_path, options, monkeypatch):
    make(tmp_path / "model")
    monkeypatch.setattr(module, "available_bytes", lambda: 1 << 20)
    with pytest.raises(
        EngineError, match=r"takes about .* GiB of memory, and 0\.0 GiB are available here: give the job mem"
    ):
        quantize(tmp_path / "model", tmp_path / "out", options, silent)
    assert not Workspace(tmp_path / "out").path.exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]).returncode:
        pytest.skip("needs root, to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_loses_nothing(whole, tmp_path, options, small_disk, monkeypatch):
    monkeypatch.setattr(module, "output_bytes", lambda calibration: 0)  # it would have been refused at once
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * (1 << 20) + b"0" * 700_000)
    with pytest.raises(ModelError, match=r"no space left for .*: .*make room and run the same command again"):
        quantize(tmp_path / "model", small_disk / "out", options, silent)
    assert not (small_disk / "out").exists()
    filler.unlink()
    quantize(tmp_path / "model", small_disk / "out", options, silent)
    assert digest(small_disk / "out") == whole


def test_a_disk_that_is_too_small_is_refused_at_once(make, tmp_path, options, small_disk):
    make(tmp_path / "model", vocab_size=20_000)
    with pytest.raises(ModelError, match=r"no space left for .*: about .* GiB are needed"):
        quantize(tmp_path / "model", small_disk / "out", options, silent)
