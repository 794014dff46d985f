"""The compiled library against the plain decoder and against float32; a real compiler, real kernels of this CPU."""

import ctypes
import random
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from slurminfer.core.errors import EngineError
from slurminfer.core.logs.text import remark
from slurminfer.nodes.engines.table import ADAPTERS
from slurminfer.nodes.native.model.fused import layout, library, pack, upgrade
from slurminfer.nodes.native.model.fused.structs import StepStruct
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.quant.checkpoint.quantized import GroupQuantized

from ....support.quantized_models import STORE, relative_error, to_act_order, to_awq
from ....support.waiting import eventually
from .conftest import FUSABLE, OLDER

# The library's error, in errors of the plain decoder in bfloat16. Both round the inputs of dense weights to bfloat16,
# but the library keeps its results in float32. Inputs of quantized weights have 8 bits beside the largest of their
# group: for the largest as many as in bfloat16, for smaller ones fewer.
MOST_OF_BFLOAT16 = {"awq": 2.0, "act-order": 2.0, "dense": 1.0, "mixed": 2.0}
pytestmark = [pytest.mark.slow, pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")]


def quantized(outputs: int, inputs: int, group: int, bits: int, *, order: bool = False) -> GroupQuantized:
    codes = torch.randint(0, 2**bits, (outputs, inputs), dtype=torch.uint8)
    scales = (torch.rand(outputs, inputs // group) * 0.01 + 0.005).half().float()
    offsets = (-scales * torch.randint(2 ** (bits - 1) - 2, 2 ** (bits - 1) + 2, scales.shape)).half().float()
    found = torch.randperm(inputs) if order else None
    return GroupQuantized(codes=codes, scales=scales, offsets=offsets, bits=bits, order=found)


def packed(
    outputs: int, inputs: int, group: int, bits: int, *, order: bool = False
) -> tuple[pack.Packed, torch.Tensor, torch.Tensor]:
    """A weight with its bias, and both in float64."""
    bias = torch.randn(outputs)
    if bits == 16:
        dense = torch.randn(outputs, inputs).bfloat16()
        return pack.pack_dense([dense[:5], dense[5:]], [bias[:5], bias[5:]]), dense.double(), bias.double()
    weight = quantized(outputs, inputs, group, bits, order=order)
    return pack.pack(weight, [bias]), weight.dequantize().double(), bias.double()


def multiply(path: Path, packed: pack.Packed, x: torch.Tensor) -> torch.Tensor:
    (rows, inputs), matrix = x.shape, packed.matrix
    y = torch.empty(rows, packed.padded)
    codes, scales = torch.empty(rows, inputs, dtype=torch.int16), torch.empty(rows, inputs // packed.group, 2)
    step = StepStruct(rows=rows, threads=2, codes=codes.data_ptr(), scales=scales.data_ptr())
    found = library.load(path)
    found.run_linear(ctypes.addressof(matrix), ctypes.addressof(step), x.data_ptr(), y.data_ptr())
    return y[:, : packed.outputs]


@pytest.mark.parametrize(("bits", "order"), [(4, False), (8, False), (16, False), (4, True), (8, True)])
@pytest.mark.parametrize(
    ("outputs", "inputs", "group"), [(48, 64, 32), (100, 192, 64), (256, 1024, 128), (7, 256, 256)]
)
def test_products_are_those_of_the_dequantized_weight(built, bits, order, outputs, inputs, group):
    weight, exact_weight, bias = packed(outputs, inputs, group, bits, order=order)
    x = torch.randn(300, inputs) * torch.rand(300, 1) * 10
    exact = x.double() @ exact_weight.t() + bias
    assert relative_error(multiply(built, weight, x), exact) < 0.01  # inputs have 8 bits, or bfloat16's 8 digits


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_row_is_the_same_whatever_is_computed_beside_it(built, bits):
    weight, _, _ = packed(80, 192, 64, bits, order=bits != 16)
    x = torch.randn(300, 192)
    whole = multiply(built, weight, x)
    for start, stop in ((0, 1), (0, 2), (5, 8), (0, 7), (100, 117), (255, 300)):
        assert torch.equal(multiply(built, weight, x[start:stop].contiguous()), whole[start:stop])


@pytest.mark.parametrize("bits", [4, 16])
def test_not_a_number_stays_one(built, bits):
    weight, _, _ = packed(16, 64, 32, bits)
    x = torch.randn(2, 64)
    x[1, 3] = torch.nan
    y = multiply(built, weight, x)
    assert y[0].isfinite().all() and y[1].isnan().all()


def whole_models() -> Iterator[tuple[str, str, str, str]]:
    """CPU, variant, weights and dtype: all on this CPU; on older ones, each variant with one kind of weights.

    What differs on older CPUs is how weights are multiplied, of which the tests above try all.
    """
    kinds = [("awq", "float32"), ("awq", "bfloat16"), ("act-order", "bfloat16"), ("dense", "bfloat16")]
    for offset, cpu in enumerate(OLDER):
        for number, variant in enumerate(FUSABLE):
            for weights, dtype in kinds if not OLDER[cpu] else [kinds[(number + offset) % len(kinds)]]:
                yield cpu, variant, weights, dtype


def test_a_dense_head_keeps_its_values_in_8_bits():
    weight = torch.randn(50, 64) * torch.rand(50, 1)
    assert relative_error(pack.round_to_bytes(weight, 32).dequantize(), weight.double()) < 0.01


@pytest.mark.parametrize(("built", "variant", "weights", "dtype"), list(whole_models()), indirect=["built"])
def test_logits_are_those_of_the_plain_decoder(
    built, make, load, drive, tmp_path, monkeypatch, variant, weights, dtype
):
    monkeypatch.setattr(library, "place", lambda: built)
    make(tmp_path, variant)
    check_logits(load, drive, tmp_path, weights, dtype)


@pytest.mark.parametrize("variant", ["llama", "qwen2"])
def test_layers_of_several_kinds_do_not_keep_the_others_from_the_library(
    built, make, load, drive, tmp_path, monkeypatch, variant
):
    monkeypatch.setattr(library, "place", lambda: built)
    make(tmp_path, variant)
    check_logits(load, drive, tmp_path, "mixed", "bfloat16")


def check_logits(load, drive, tmp_path, weights, dtype):
    """Prompts in whole, in pieces and token by token, in one step with others, over the same and other positions."""
    STORE[weights](tmp_path)
    fused = load(tmp_path, kernels="compiled", dtype=dtype)
    assert fused.compiled
    prompts = [random.Random(length).choices(range(199), k=length) for length in (3, 33, 80)]
    plain = [load(tmp_path, kernels="exact", dtype=dtype) for dtype in ("float32", "bfloat16")]
    found = []
    for driver in map(drive, [*plain, fused]):
        sequences = [driver.add(prompt) for prompt in prompts]
        driver.step((sequences[0], 3), (sequences[1], 20), (sequences[2], 60))
        sequences[0].generated[-1] = 3  # the same for both, whatever they would have said
        driver.step((sequences[0], 1), (sequences[1], 13), (sequences[2], 20))
        for token in (5, 7):
            for sequence in sequences:
                sequence.generated[-1] = token
            driver.step(*((sequence, 1) for sequence in sequences))
        found.append(torch.stack([row for sequence in sequences for row in sequence.logits]))
    exact, in_bfloat16, in_library = found
    most = MOST_OF_BFLOAT16[weights] * relative_error(in_bfloat16, exact.double())
    assert relative_error(in_library, exact.double()) < most


@pytest.fixture(params=[("awq", "auto"), ("act-order", "auto"), ("dense", "auto"), ("awq", "int8"), ("awq", "int4")])
def fused(request, make, load, tmp_path):
    weights, kv_cache_dtype = request.param
    make(tmp_path, "llama")
    STORE[weights](tmp_path)
    return load(tmp_path, kernels="compiled", dtype="bfloat16", kv_cache_dtype=kv_cache_dtype)


def test_batches_and_pieces_change_no_bit(drive, fused):
    prompt, driver = random.Random(1).choices(range(199), k=40), drive(fused)
    alone = driver.add(prompt)
    while not alone.logits:
        driver.step((alone, 1))
    in_pieces, other = driver.add(prompt), driver.add(random.Random(2).choices(range(199), k=70))
    driver.step((other, 60), (in_pieces, 7))
    driver.step((in_pieces, 16), (other, 10))
    driver.step((in_pieces, 16), (other, 1))
    driver.step((other, 1), (in_pieces, 1))
    assert torch.equal(in_pieces.logits[0], alone.logits[0])


@pytest.mark.parametrize("length", [9, 17, 90, 250])
def test_a_prompt_is_the_same_to_the_bit_wherever_it_is_cut(fused, length):
    """As where its beginning is in the prefix cache, or where the budget of a step ends; a cut may leave one token."""
    prompt, size = random.Random(length).choices(range(199), k=length), fused.block_size
    count = -(-length // size)
    tables = iter([list(range(start, start + count)) for start in range(0, 4 * count, count)])

    def logits(*cuts: int) -> torch.Tensor:
        table, found = next(tables), torch.empty(0)
        for start, stop in pairwise([0, *cuts, length]):
            found = fused.forward([Chunk(prompt[start:stop], start, table, int(stop == length), prompt=True)]).clone()
        return found

    whole = logits()
    assert torch.equal(logits(length - 1), whole)
    assert torch.equal(logits(length // 3, length // 2), whole)
    assert torch.equal(logits(1, 8), whole)


def test_threads_change_no_bit(drive, fused):
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        driver = drive(fused)
        sequence = driver.add(random.Random(1).choices(range(199), k=90))
        while not sequence.logits:
            driver.step((sequence, min(15, 90 - sequence.computed)))
        found.append(sequence.logits[0])
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_library_that_is_not_there_yet_is_used_once_it_is(make, load, drive, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    make(tmp_path / "model", "llama")
    to_awq(tmp_path / "model")
    options = EngineOptions(model=tmp_path / "model", dtype="bfloat16", kv_cache_gib=0.05, block_size=8, threads=1)
    runner = load_model(options, at_once=True)
    driver = drive(runner)
    sequence = driver.add(random.Random(1).choices(range(199), k=20))
    driver.step((sequence, 20))  # by PyTorch, unless compiling took no longer
    eventually(lambda: runner.compiled, "the library is compiled", 250)
    driver.step((sequence, 1))  # over the keys and values of before
    exact, in_bfloat16 = (
        follow(drive(load(tmp_path / "model", kernels="exact", dtype=dtype)), sequence)
        for dtype in ("float32", "bfloat16")
    )
    most = MOST_OF_BFLOAT16["awq"] * relative_error(in_bfloat16, exact.double())
    assert relative_error(sequence.logits[1], exact.double()) < most


def follow(driver, sequence) -> torch.Tensor:
    """Logits behind the prompt and the first token of a sequence that another decoder has generated."""
    same = driver.add([*sequence.prompt, sequence.generated[0]])
    driver.step((same, len(same.prompt)))
    return same.logits[0]


def test_without_room_for_both_the_plain_decoder_stays(make, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(upgrade, "available_bytes", lambda: 1000)
    make(tmp_path / "model", "llama")
    to_awq(tmp_path / "model")
    options = EngineOptions(model=tmp_path / "model", dtype="bfloat16", kv_cache_gib=0.05, threads=1)
    runner = load_model(options, at_once=True)
    eventually(lambda: "upgrade" not in [thread.name for thread in threading.enumerate()], "the upgrade is over")
    assert "too little memory to change over" in capfd.readouterr().err
    assert not runner.compiled


def test_no_compiler_is_slower_but_works_and_says_so(make, load, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    make(tmp_path, "llama")
    to_awq(tmp_path)
    assert not load(tmp_path, dtype="bfloat16").compiled
    said = capfd.readouterr().err
    assert remark(said, ADAPTERS["native"].log_format) == "slower without compiled kernels: there is no g++ on PATH"
    with pytest.raises(EngineError, match="kernels = 'compiled': needs"):
        load(tmp_path, dtype="bfloat16", kernels="compiled")


def test_a_compiler_that_fails_is_told_of(make, load, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\n[ $1 = --version ] || { echo 'disk is full' >&2; exit 1; }\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    make(tmp_path, "llama")
    to_awq(tmp_path)
    assert not load(tmp_path, dtype="bfloat16").compiled
    assert "disk is full" in capfd.readouterr().err
    with pytest.raises(EngineError, match="disk is full"):
        load(tmp_path, dtype="bfloat16", kernels="compiled")


@pytest.mark.parametrize("changes", [{"lm_head": "dense"}, {"dtype": "float16"}])
def test_what_the_library_does_not_have_is_computed_without(make, load, tmp_path, changes):
    make(tmp_path, "llama")
    to_awq(tmp_path)
    assert not load(tmp_path, **({"dtype": "bfloat16"} | changes)).compiled


def test_orders_that_differ_between_joined_layers_are_computed_without(make, load, tmp_path):
    make(tmp_path, "llama")
    to_act_order(tmp_path, alone="k_proj")
    assert not load(tmp_path, dtype="bfloat16").compiled
    with pytest.raises(EngineError, match="computed as one differ in the order of their inputs"):
        load(tmp_path, dtype="bfloat16", kernels="compiled")


def test_an_unquantized_model_in_float32_is_computed_without(make, load, tmp_path):
    make(tmp_path, "llama")
    assert not load(tmp_path, dtype="float32").compiled
    with pytest.raises(EngineError, match="kernels = 'compiled': needs"):
        load(tmp_path, dtype="float32", kernels="compiled")


@pytest.mark.parametrize("kv_cache_dtype", ["auto", "int4"])
def test_generated_tokens_are_the_same_to_the_bit_when_they_are_computed_again_at_once(
    make, load, drive, tmp_path, monkeypatch, kv_cache_dtype
):
    """As where an answer goes on on another worker; with room for the results of few pieces, they come in turns."""
    make(tmp_path, "llama", {"max_position_embeddings": 700})
    to_awq(tmp_path)
    tokens = random.Random(3).choices(range(199), k=600)
    driver = drive(load(tmp_path, kernels="compiled", dtype="bfloat16", kv_cache_dtype=kv_cache_dtype))
    one_by_one = driver.add(tokens)
    while not one_by_one.logits:
        driver.step((one_by_one, 1))
    for at_once in (1, 7, layout._AT_ONCE):
        monkeypatch.setattr(layout, "_AT_ONCE", at_once)
        again, other = driver.add(tokens), driver.add(tokens[::-1])
        driver.step((again, 270), (other, 30))
        driver.step((other, 17), (again, 330))
        assert torch.equal(again.logits[0], one_by_one.logits[0])
