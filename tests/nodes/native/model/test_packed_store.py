"""Packed weights in a file: the same bits, whatever happens to the file."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from slurminfer.nodes.native.model import loading
from slurminfer.nodes.native.model.fused import library, pack, store, upgrade
from slurminfer.nodes.native.model.fused.parts import pack_model
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.quant.checkpoint.config import read_config
from slurminfer.quant.checkpoint.weights import Weights

from ....support.quantized_models import to_act_order, to_awq
from ....support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")]


@pytest.fixture
def home(tmp_path, monkeypatch, lend_library) -> Path:
    """A user's directory whose packed weights are kept, however small the model is."""
    lend_library(tmp_path / "home")
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(upgrade, "_WORTH_KEEPING_S", 0.0)
    return tmp_path / "home"


@pytest.fixture(params=["llama", "qwen3", "act-order", "dense"])
def model(request, make, tmp_path) -> Path:
    """With and without norms of heads; with inputs in another order; and unquantized."""
    directory = tmp_path / "model"
    make(directory, "qwen3" if request.param == "qwen3" else "llama")
    if request.param != "dense":
        (to_act_order if request.param == "act-order" else to_awq)(directory)
    return directory


def logits(runner, drive) -> torch.Tensor:
    driver = drive(runner)
    sequence = driver.add(list(range(40)))
    driver.step((sequence, 40))
    return sequence.logits[0]


def wait_for(path: Path) -> None:
    eventually(path.exists, f"{path} is there")


def test_the_second_start_reads_what_the_first_has_packed(home, model, load, drive, monkeypatch):
    first = logits(load(model, kernels="compiled", dtype="bfloat16"), drive)
    wait_for(store.place_of(model, torch.bfloat16))
    monkeypatch.setattr(upgrade, "pack_model", lambda *_: pytest.fail("packed again"))
    assert torch.equal(logits(load(model, kernels="compiled", dtype="bfloat16"), drive), first)


@pytest.mark.parametrize("damage", ["a bit", "its end", "all"])
def test_a_damaged_file_is_told_of_and_not_used(home, model, load, drive, capfd, damage):
    first = logits(load(model, kernels="compiled", dtype="bfloat16"), drive)
    path = store.place_of(model, torch.bfloat16)
    wait_for(path)
    content = bytearray(path.read_bytes())
    if damage == "a bit":
        content[len(content) // 2] ^= 4
    path.write_bytes({"a bit": bytes(content), "its end": bytes(content[:-5000]), "all": b"nothing"}[damage])
    assert torch.equal(logits(load(model, kernels="compiled", dtype="bfloat16"), drive), first)
    assert "is damaged, weights are packed anew" in capfd.readouterr().err


def test_another_version_of_the_model_has_another_file(home, model):
    before = store.place_of(model, torch.bfloat16)
    assert store.place_of(model, torch.float32) != before
    weights = next(model.glob("*.safetensors"))
    os.utime(weights, (0, 0))
    assert store.place_of(model, torch.bfloat16) != before


def test_where_nothing_can_be_written_the_engine_starts_all_the_same(home, model, load, drive, capfd):
    load(model, kernels="compiled", dtype="bfloat16")  # the library is there
    wait_for(store.place_of(model, torch.bfloat16))
    place = store.place_of(model, torch.bfloat16)
    place.unlink()
    place.parent.rmdir()
    place.parent.write_text("no directory")
    assert logits(load(model, kernels="compiled", dtype="bfloat16"), drive).isfinite().all()
    store.finish_writing()
    assert "packed weights are not kept" in capfd.readouterr().err


def test_a_disk_that_fills_leaves_nothing_behind(home, model, monkeypatch, capfd):
    def full(*_):
        raise OSError(28, "No space left on device")

    config = read_config(model)
    parts = pack_model(config, Weights(model, torch.bfloat16, config.quantization))
    monkeypatch.setattr(os, "fsync", full)
    path = store.place_of(model, torch.bfloat16)
    store.write_later(path, parts).join()
    assert "No space left" in capfd.readouterr().err
    assert list(path.parent.iterdir()) == []


def test_what_a_killed_process_left_is_swept(home, model):
    config = read_config(model)
    parts = pack_model(config, Weights(model, torch.bfloat16, config.quantization))
    path = store.place_of(model, torch.bfloat16)
    path.parent.mkdir(parents=True)
    old, young = (path.parent / f".{path.name}.other.{i}" for i in (1, 2))
    for left in (old, young):
        left.touch()
    os.utime(old, (0, 0))
    store.write_later(path, parts).join()
    assert sorted(path.parent.iterdir()) == sorted([young, path])


def test_a_process_that_ends_does_not_wait_for_the_disk(tmp_path):
    program = """
import sys, torch
from pathlib import Path
from slurminfer.nodes.native.model.fused.pack import pack_dense
from slurminfer.nodes.native.model.fused.parts import Parts
from slurminfer.nodes.native.model.fused.store import write_later
weights = torch.zeros(300_000_000, dtype=torch.uint8)
write_later(Path(sys.argv[1]), Parts([], torch.zeros(1), pack_dense([torch.zeros(16, 32)], []), weights))
"""
    argv = [sys.executable, "-c", program, str(tmp_path / "packed.pt")]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "packed.pt"])  # all of it, if the disk is that fast


@pytest.mark.parametrize("sizes", [(100,), (7, 40, 3), (64, 64), (1, 1)])
def test_dense_weights_are_packed_piece_by_piece(monkeypatch, sizes):
    weights = [torch.randn(size, 32) for size in sizes]
    whole = pack.pack_dense(weights, [])
    monkeypatch.setattr(pack, "_ROWS", 16)
    pieces = pack.pack_dense(weights, [])
    assert torch.equal(pieces.codes, whole.codes) and pieces.outputs == whole.outputs == sum(sizes)
    rows = whole.codes.transpose(1, 2).reshape(-1, 32)
    assert torch.equal(rows[: sum(sizes)], torch.cat(weights).bfloat16()) and not rows[sum(sizes) :].any()


def test_a_large_model_is_not_held_twice_while_the_library_is_compiled(home, model, drive, monkeypatch):
    """Packing goes on meanwhile, and there is no plain decoder."""
    compiling, packed = threading.Event(), threading.Event()

    def compile_slowly(path):
        compiling.set()
        assert packed.wait(10), "packing does not wait for the compiler"

    def pack_and_tell(*args):
        assert compiling.wait(10)
        parts = pack_model(*args)
        packed.set()
        return parts

    monkeypatch.setattr(upgrade, "_SMALL", 0)
    monkeypatch.setattr(library, "is_whole", lambda path: False)
    monkeypatch.setattr(library, "compile_to", compile_slowly)
    monkeypatch.setattr(upgrade, "pack_model", pack_and_tell)
    monkeypatch.setattr(loading, "_load_plain", None)
    options = EngineOptions(model=model, dtype="bfloat16", kv_cache_gib=0.05, threads=1)
    assert loading.load_model(options, at_once=True).compiled
