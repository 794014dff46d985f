"""Perplexity through the engine is transformers' loss on the same windows."""

import math
import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from slurminfer.core.errors import EngineError
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.nodes.native.perplexity import Perplexity, cut_windows, perplexity

pytestmark = pytest.mark.slow

TEXT = (
    "The lighthouse stood where the river met the sea. Every evening its keeper climbed two hundred and twelve steps, "
    "trimmed the lamp, and wrote the names of the passing ships into a book that nobody read. One winter a letter came "
    "from the capital: the lamp would be replaced by an electric one, which needs no keeper. He read it twice, folded "
    "it, and climbed the steps as before, because the fog was coming in and somebody out there was counting on him."
)


def _tokens(count: int) -> list[int]:
    return random.Random(1).choices(range(199), k=count)


@torch.inference_mode()
def _loss(model, windows: list[list[int]]) -> float:
    """transformers' mean over windows of one length: of all tokens but the first of each."""
    ids = torch.tensor(windows)
    return float(model(ids, labels=ids).loss)


@pytest.mark.parametrize("chunk", [1, 4, 7, 31, 200])
def test_equals_the_loss_of_transformers_for_every_chunk(make, load, tmp_path, chunk):
    reference = make(tmp_path, "mistral window")
    found = perplexity(load(tmp_path), _tokens(100), window=32, chunk=chunk)
    assert len(found.losses) == 3 * 31
    assert found.mean == pytest.approx(_loss(reference, cut_windows(_tokens(100), 32, None)), abs=1e-5)
    assert found.value == pytest.approx(math.exp(found.mean))


def test_equals_the_loss_of_transformers_with_bos_before_each_window(make, load, tmp_path):
    reference = make(tmp_path, "llama")
    windows = cut_windows(_tokens(93), 32, 5)
    assert [window[0] for window in windows] == [5, 5, 5]
    assert [token for window in windows for token in window[1:]] == _tokens(93)
    found = perplexity(load(tmp_path), _tokens(93), window=32, chunk=8, bos_id=5)
    assert found.mean == pytest.approx(_loss(reference, windows), abs=1e-5)


def test_equals_the_loss_of_transformers_on_a_real_model(demo_model, load):
    tokens = AutoTokenizer.from_pretrained(demo_model)(TEXT).input_ids
    reference = AutoModelForCausalLM.from_pretrained(demo_model, dtype=torch.float32)
    expected = _loss(reference, cut_windows(tokens, 40, None)[:2])
    found = perplexity(load(demo_model, kv_cache_gib=0.5, block_size=16), tokens[:80], window=40, chunk=16)
    assert found.mean == pytest.approx(expected, abs=1e-4)


def test_logits_of_several_rows_come_in_the_chunks_order(make, load, tmp_path):
    reference = make(tmp_path, "llama")
    runner = load(tmp_path)
    long, short = _tokens(20), _tokens(12)[::-1]
    runner.forward([Chunk(short[:11], 0, range(10, 12), num_logits=0)])
    with torch.inference_mode():
        expected = torch.cat([reference(torch.tensor([long])).logits[0, 15:], *reference(torch.tensor([short])).logits])
    logits = runner.forward(
        [Chunk(long, 0, range(3), num_logits=5), Chunk(short[11:], 11, range(10, 12), num_logits=1)]
    )
    torch.testing.assert_close(logits.cpu(), torch.cat([expected[:5], expected[-1:]]), atol=1e-4, rtol=0)


def test_the_standard_error_is_that_of_the_mean():
    assert Perplexity((1.0, 3.0)).mean == 2.0
    assert Perplexity((1.0, 3.0)).standard_error == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("window", "count", "message"),
    [(1, 10, "expected 2 to 256"), (257, 600, "expected 2 to 256"), (64, 63, "63 tokens, less than one window of 64")],
)
def test_windows_that_cannot_be_are_refused(make, load, tmp_path, window, count, message):
    make(tmp_path, "llama")
    with pytest.raises(EngineError, match=message):
        perplexity(load(tmp_path), _tokens(count), window=window, chunk=8)


def test_weights_that_compute_nan_are_named_as_such(make, load, tmp_path):
    make(tmp_path, "llama")
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.norm.weight"].fill_(torch.nan)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(EngineError, match="not finite"):
        perplexity(load(tmp_path), _tokens(40), window=32, chunk=8)
