"""The compiled library over KV caches of 8 and 4 bits: what it writes, what it attends to, who else may use them."""

import math
import random

import pytest
import torch

from slurminfer.nodes.native.model.fused import library

from ....support.quantized_models import relative_error, to_awq
from .conftest import FUSABLE, VARIANTS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")]
QUANTIZED = ["int8", "int4"]


def _prompt(length, seed=0):
    return random.Random(seed).choices(range(199), k=length)


@pytest.fixture
def place(built, monkeypatch):
    """Runners take this library."""
    monkeypatch.setattr(library, "place", lambda: built)


@pytest.fixture
def model(make, tmp_path, place):
    def model(variant, **changes):
        VARIANTS["changed"] = (VARIANTS[variant][0], VARIANTS[variant][1] | changes)
        try:
            make(tmp_path, "changed")
        finally:
            del VARIANTS["changed"]
        to_awq(tmp_path)
        return tmp_path

    return model


def _parts_of_layer(runner, layer, sequence):
    """Each part of the vectors [2, kv_heads, tokens] of a sequence."""
    tokens = runner.cache.token_rows(torch.tensor([sequence.blocks]))[0, ..., : sequence.computed]
    return [part[tokens] for part in runner.cache.parts(layer)]


# 16 and 48 are no multiple of 32, 48 and 96 no power of two.
@pytest.mark.parametrize("head_dim", [16, 32, 48, 64, 96, 128, 256])
@pytest.mark.parametrize("kind", QUANTIZED)
def test_it_writes_what_the_format_writes(model, load, drive, kind, head_dim):
    path = model("qwen3", head_dim=head_dim)
    found = []
    for kv_cache_dtype in ("auto", kind):
        runner = load(path, kernels="compiled", dtype="float32", kv_cache_dtype=kv_cache_dtype)
        driver = drive(runner)
        sequence = driver.add(_prompt(50))
        driver.step((sequence, 40))
        driver.step((sequence, 10))
        found.append(_parts_of_layer(runner, 0, sequence))  # nothing has been attended to yet
    (exact,), parts = found
    written = runner.cache.format.encode(exact.permute(2, 0, 1, 3))
    expected = [part.view(50, 2, -1, part.shape[-1]).permute(1, 2, 0, 3) for part in written]
    (codes, affine), (expected_codes, expected_affine) = _codes(kind, parts), _codes(kind, expected)
    # float16 has 11 digits; a number in the middle between two codes may become either.
    torch.testing.assert_close(affine, expected_affine, rtol=2**-10, atol=2**-24)
    assert (codes - expected_codes).abs().max() <= 1
    assert (codes != expected_codes).float().mean() < 0.005


def _codes(kind, parts):
    """Codes, and scales with minima, as float32."""
    if kind == "int8":
        return parts[0].float(), parts[1].float()
    pairs, affine = parts[0][..., :-4], parts[0][..., -4:].contiguous().view(torch.float16)
    return torch.stack((pairs & 15, pairs >> 4), -1).flatten(-2).float(), affine.float()


# Where the CPU multiplies bfloat16, keys, values, queries and, in blocks, weights are rounded to its 8 digits: by up to
# 2^-9 each. Scores of the random models are large, and weights multiply their errors.
@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("variant", FUSABLE)
def test_attention_is_exact_over_what_the_cache_holds(model, load, drive, kind, variant):
    """In blocks, and one by one: the last layer, whose queries and outputs are there after a step."""
    runner = load(model(variant), kernels="compiled", dtype="bfloat16", kv_cache_dtype=kind)
    driver, window = drive(runner), runner.config.windows[-1]
    sequence = driver.add(_prompt(90))
    for count in (40, 33, 16, 1):
        driver.step((sequence, count))
        queries, found = _last_attention(runner, count)
        keys, values = _dequantized(runner, sequence)
        assert relative_error(found, _attend(queries, keys, values, window)) < 0.01


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("heads", [(1, 1), (7, 1), (40, 1), (5, 5)])
def test_any_number_of_heads_may_share_a_key(model, load, drive, kind, heads):
    path = model("qwen3", head_dim=64, num_attention_heads=heads[0], num_key_value_heads=heads[1])
    runner = load(path, kernels="compiled", dtype="bfloat16", kv_cache_dtype=kind)
    driver = drive(runner)
    sequence = driver.add(_prompt(60))
    for count in (50, 10):
        driver.step((sequence, count))
        queries, found = _last_attention(runner, count)
        keys, values = _dequantized(runner, sequence)
        assert relative_error(found, _attend(queries, keys, values, None)) < 0.01


def _last_attention(runner, rows):
    """Of the step before, in the last layer: queries as they met the keys, and outputs, [rows, heads, head_dim]."""
    config, found = runner.config, runner.decoder._buffers._found
    width = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    queries = found["qkv"][: rows * width].view(rows, -1, config.head_dim)[:, : config.num_heads]
    outputs = found["attention"][: rows * config.num_heads * config.head_dim].view(rows, -1, config.head_dim)
    return queries.double(), outputs.double()


def _dequantized(runner, sequence):
    """Keys and values [kv_heads, tokens, head_dim] of the last layer as stored, keys of 4 bits rotated."""
    rows = runner.cache.rows(torch.tensor([sequence.blocks]))
    found = runner.cache.gather(runner.config.num_layers - 1, rows, 1)
    return [x[0, :, : sequence.computed].double() for x in found]


def _attend(queries, keys, values, window):
    """Of the last tokens over all, in float64."""
    (rows, heads, head_dim), (kv_heads, tokens, _) = queries.shape, keys.shape
    keys, values = (x.repeat_interleave(heads // kv_heads, 0) for x in (keys, values))
    age = torch.arange(tokens - rows, tokens).unsqueeze(1) - torch.arange(tokens)
    hidden = (age < 0) | (age >= (window or tokens))
    scores = queries.transpose(0, 1) @ keys.transpose(1, 2) / math.sqrt(head_dim)
    return (scores.masked_fill(hidden, -math.inf).softmax(-1) @ values).transpose(0, 1)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_prompt_in_blocks_is_what_it_is_token_by_token(model, load, drive, kind):
    driver = drive(load(model("llama"), kernels="compiled", dtype="bfloat16", kv_cache_dtype=kind))
    at_once, one_by_one = driver.add(_prompt(40)), driver.add(_prompt(40))
    driver.step((at_once, 40))
    while not one_by_one.logits:
        driver.step((one_by_one, 1))
    # Sums are rounded in another order, and a code becomes its neighbour now and then.
    assert relative_error(one_by_one.logits[0], at_once.logits[0].double()) < {"int8": 0.05, "int4": 0.2}[kind]


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_takes_turns_with_the_plain_decoder_on_one_cache(model, load, drive, kind, dtype):
    path = model("llama")
    alone, runner = (load(path, kernels="exact", dtype=dtype, kv_cache_dtype=kind) for _ in range(2))
    plain, fused = runner.decoder, load(path, kernels="compiled", dtype=dtype, kv_cache_dtype=kind).decoder
    fused.attach(runner.cache)
    drivers = drive(alone), drive(runner)
    sequences = [driver.add(_prompt(60)) for driver in drivers]
    for i, count in enumerate((20, 20, 5, 5, 9, 1)):
        runner.replace_decoder((plain, fused)[i % 2])
        for driver, sequence in zip(drivers, sequences, strict=True):
            driver.step((sequence, count))
    expected, found = (sequence.logits[0] for sequence in sequences)
    assert relative_error(found, expected.double()) < {"int8": 0.1, "int4": 0.3}[kind]
