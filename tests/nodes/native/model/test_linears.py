"""Every kernel computes with the weights that the checkpoint has, at any number of rows."""

import os
import random
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import torch.nn.functional as F

from slurminfer.core.errors import EngineError
from slurminfer.nodes.native.model import loading
from slurminfer.nodes.native.model.linears.choice import choose_kernels, dense_bytes
from slurminfer.nodes.native.model.linears.combined import ByRows, SideBySide
from slurminfer.nodes.native.model.linears.int4_cpu import Int4CpuWeight, Scratch, layout
from slurminfer.nodes.native.model.linears.int8_cpu import Int8Cpu
from slurminfer.nodes.native.model.linears.table import INT8_HEAD_ROWS, Kernels, make_head, make_linear
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.quant.checkpoint.config import read_config
from slurminfer.quant.checkpoint.quantized import GroupQuantized

from ....support.quantized_models import relative_error, to_awq

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
on_cuda = pytest.mark.skipif(os.environ.get("SLURMINFER_TEST_DEVICE") != "cuda", reason="SLURMINFER_TEST_DEVICE=cuda")
ROWS = (0, 1, 2, 3, 4, 5, 12, 13, 16, 17, 64, 65, 130, 300)
# outputs, inputs, group size: multiples of the kernels' blocks and others, groups that they have and that they lack
SHAPES = [
    (64, 64, 32),
    (960, 576, 64),
    (96, 256, 256),
    (100, 192, 96),
    (199, 512, 512),
    (8, 640, 128),
    (1040, 4160, 64),
]
# Of the result's norm: x, the weight and the result are rounded to bfloat16, each by at most one part in 256 and a
# third of that in the mean; scales and offsets as well, where they do not fit already.
BFLOAT16_ERROR = 1 / 150


@pytest.fixture(autouse=True)
def _fresh_numbers():
    """Other numbers in every run; a failure prints what `torch.manual_seed` needs to see them again."""
    print("seed", torch.seed())


def quantized(outputs: int, inputs: int, group_size: int, *, bits: int = 4, order: bool = False) -> GroupQuantized:
    """Random codes, scales that differ by a factor of ten, and offsets that are no multiples of them."""
    groups = inputs // group_size
    scales = 10 ** (torch.rand(outputs, groups) - 2) / 2**bits
    return GroupQuantized(
        codes=torch.randint(0, 2**bits, (outputs, inputs), dtype=torch.uint8),
        scales=scales,
        offsets=-scales * (torch.rand(outputs, groups) * 2**bits),
        bits=bits,
        order=torch.randperm(inputs) if order else None,
    )


@pytest.mark.parametrize("keep_dense", [True, False], ids=["kept", "unpacked"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("outputs", "inputs", "group_size"), SHAPES)
def test_int4_on_a_cpu_equals_dequantized_weights(outputs, inputs, group_size, dtype, keep_dense):
    for order in (False, True):
        weight, bias = quantized(outputs, inputs, group_size, order=order), torch.randn(outputs).to(dtype)
        layer = make_linear([weight], [bias], dtype, CPU, Kernels(keep_dense=keep_dense))
        for rows in ROWS:
            x = torch.randn(rows, inputs).to(dtype)
            exact = x.double() @ weight.dequantize().double().T + bias.double()
            y = layer(x)
            assert y.dtype == dtype
            assert relative_error(y, exact) < BFLOAT16_ERROR, (rows, order)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_weights_are_the_same_at_every_number_of_rows(dtype):
    """What the kernel reads, one input at a time, is what it unpacks to, also where scales are not bfloat16's."""
    packed = Int4CpuWeight(quantized(96, 256, 64), Scratch())
    seen = packed.multiply(torch.eye(256, dtype=torch.bfloat16)).T
    assert torch.equal(packed.dense(dtype).to(torch.bfloat16), seen)
    assert torch.equal(packed.multiply_unpacked(torch.eye(256, dtype=dtype)).T, packed.dense(dtype))


def test_scales_that_bfloat16_holds_are_kept_exactly():
    weight = quantized(64, 128, 32)
    scales = torch.full_like(weight.scales, 2**-6) * torch.randint(1, 4, weight.scales.shape)
    weight = GroupQuantized(codes=weight.codes, scales=scales, offsets=-7 * scales, bits=4)
    assert torch.equal(Int4CpuWeight(weight, Scratch()).dense(torch.float32), weight.dequantize())


@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_older_cpus_pack_in_ways_that_are_known(capability):
    """In a process of its own: PyTorch chooses its kernels once."""
    check = (
        "import torch; from tests.nodes.native.model.test_linears import *\n"
        "assert torch.backends.cpu.get_cpu_capability() == sys.argv[1].upper()\n"
        "test_the_weights_are_the_same_at_every_number_of_rows(torch.float32)\n"
        "test_int4_on_a_cpu_equals_dequantized_weights(100, 192, 96, torch.float32, False)\n"
    )
    env = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", check, capability], env=env, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_table_chooses_by_device_dtype_weight_and_room():
    assert layout() is not None
    weight = quantized(64, 128, 32)
    limits = {
        (dtype, keep): make_linear([weight], [], dtype, CPU, Kernels(keep_dense=keep)).limit  # type: ignore[attr-defined]
        for dtype in (torch.bfloat16, torch.float32)
        for keep in (True, False)
    }
    assert limits[torch.bfloat16, True] < limits[torch.float32, True] < limits[torch.bfloat16, False]
    for dense in (quantized(64, 128, 16), quantized(64, 128, 32, bits=8)):
        assert not isinstance(make_linear([dense], [], torch.bfloat16, CPU, Kernels()), ByRows)
    assert not isinstance(make_linear([weight], [], torch.float16, CPU, Kernels()), ByRows)


@pytest.mark.parametrize("bits", [4, 8])
def test_exact_is_the_dequantized_weight_in_the_compute_dtype(bits):
    weight, x = quantized(64, 128, 32, bits=bits, order=True), torch.randn(3, 128)
    layer = make_linear([weight], [], torch.float32, CPU, Kernels(exact=True))
    torch.testing.assert_close(layer(x), F.linear(x, weight.dequantize()))


def test_weights_of_several_kinds_lie_side_by_side():
    kinds: list[GroupQuantized | torch.Tensor] = [
        quantized(32, 128, 32),
        torch.randn(40, 128).bfloat16(),
        quantized(24, 128, 64, order=True),
    ]
    biases = [torch.randn(n).bfloat16() for n in (32, 40, 24)]
    layer = make_linear(kinds, biases, torch.bfloat16, CPU, Kernels(keep_dense=True))
    assert isinstance(layer, SideBySide)
    dense = torch.cat([kind.dequantize() if isinstance(kind, GroupQuantized) else kind.float() for kind in kinds])
    for rows in (1, 4, 5, 70):
        x = torch.randn(rows, 128).bfloat16()
        exact = x.double() @ dense.double().T + torch.cat(biases).double()
        assert relative_error(layer(x), exact) < BFLOAT16_ERROR


@pytest.mark.parametrize("shape", [(199, 64), (1000, 576), (5000, 128)])
def test_an_8_bit_head_is_close_to_the_dense_one(shape):
    weight = torch.randn(shape).bfloat16()
    weight[3] = 0
    layer = make_head(weight, CPU, Kernels(int8_head=True))
    for rows in (0, 1, INT8_HEAD_ROWS, INT8_HEAD_ROWS + 1, 9):
        x = torch.randn(rows, shape[1]).bfloat16()
        # The largest of normal weights is 3 to 4 times their deviation, a step 1/127 of it, its error 1/sqrt(12).
        assert relative_error(layer(x), x.double() @ weight.double().T) < 4 / 127 / 12**0.5
    assert relative_error(Int8Cpu(weight)(x), x.double() @ weight.double().T) > BFLOAT16_ERROR / 2


def test_a_head_that_the_8_bit_kernel_would_misread_stays_dense():
    assert not isinstance(make_head(torch.randn(64, 60).bfloat16(), CPU, Kernels(int8_head=True)), ByRows)


def test_packing_takes_little_more_memory_than_what_it_makes():
    weight = quantized(8192, 4096, 64)
    process = psutil.Process()
    before = process.memory_info().rss
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM starts anew
    packed = Int4CpuWeight(weight, Scratch())
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    assert packed.outputs == 8192
    codes = weight.codes.nbytes
    assert peak - before < 2 * codes  # as int32 they alone would be 4 times the codes; they end up at half of them


def test_options_decide_what_is_used(make, tmp_path):
    make(tmp_path, "llama")
    to_awq(tmp_path)
    config = read_config(tmp_path)

    def chosen(computed: torch.dtype = torch.bfloat16, available: int = 1 << 30, **options):
        return choose_kernels(EngineOptions(model=tmp_path, **options), config, computed, CPU, available)

    assert not chosen().exact
    assert chosen(kernels="exact").exact
    assert chosen(torch.float32, dtype="float32").exact
    assert not chosen(torch.float32).exact  # what auto is without bfloat16 instructions
    assert not chosen(torch.float32, dtype="float32", kernels="torch").exact
    size = dense_bytes(config, torch.bfloat16)
    assert chosen(available=2 * size).keep_dense
    assert not chosen(available=2 * size - 1).keep_dense
    assert chosen(lm_head="int8").int8_head
    assert not chosen(lm_head="dense").int8_head
    assert chosen().int8_head == torch.cpu._is_amx_tile_supported()
    assert not chosen(torch.float32).int8_head
    with pytest.raises(EngineError, match="lm_head = 'int8': needs bfloat16 on a CPU"):
        chosen(torch.float32, lm_head="int8")


def test_dense_bytes_are_those_of_the_linear_layers(make, tmp_path):
    model = make(tmp_path, "llama multi-head, head_dim")
    layers = [m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and name != "lm_head"]
    assert dense_bytes(read_config(tmp_path), torch.float32) == sum(layer.weight.nbytes for layer in layers)


@pytest.mark.parametrize("room", [True, False], ids=["kept", "unpacked"])
@pytest.mark.parametrize("variant", ["llama", "llama tied, biases", "qwen3"])
def test_tokens_differ_from_exact_ones_only_where_the_best_logits_are_close(
    make, load, drive, tmp_path, monkeypatch, variant, room
):
    make(tmp_path, variant)
    to_awq(tmp_path)
    prompts = [random.choices(range(199), k=length) for length in (5, 33, 80)]
    reference = drive(load(tmp_path))
    if not room:
        monkeypatch.setattr(loading, "available_bytes", lambda: 0)
    driver = drive(load(tmp_path, dtype="bfloat16", kernels="torch"))
    pairs = [(driver.add(prompt), reference.add(prompt)) for prompt in prompts]
    driver.step(*((sequence, len(sequence.prompt)) for sequence, _ in pairs))
    for _ in range(40):
        driver.step(*((sequence, 1) for sequence, _ in pairs))
    for sequence, exact in pairs:
        tokens = reference.finish(exact, 40)
        first = next((i for i in range(40) if sequence.generated[i] != tokens[i]), None)
        if first is not None:
            logits = exact.logits[first]
            best = logits.topk(2).values
            assert best[0] - best[1] < 32 * torch.finfo(torch.bfloat16).eps * logits.abs().max()


@pytest.mark.parametrize("chunk", [3, 80], ids=["few rows", "many rows"])
def test_logits_are_as_close_as_those_of_dense_bfloat16(make, load, drive, tmp_path, chunk):
    make(tmp_path, "llama")
    to_awq(tmp_path)
    # Errors of one prompt vary by half; those of 48 together by a tenth. The same prompts in every run.
    chosen = random.Random(0)
    prompts = [chosen.choices(range(199), k=length) for length in (3, 33, 80) * 16]

    def logits(**options) -> torch.Tensor:
        driver = drive(load(tmp_path, **options))
        sequences = [driver.add(prompt) for prompt in prompts]
        for sequence in sequences:
            while not sequence.logits:
                driver.step((sequence, min(chunk, len(sequence.prompt) - sequence.computed)))
        return torch.stack([sequence.logits[0] for sequence in sequences])

    exact = logits().double()
    dense = relative_error(logits(dtype="bfloat16", kernels="exact"), exact)
    # Both round weights, inputs and results to bfloat16, at other places.
    assert relative_error(logits(dtype="bfloat16", kernels="torch"), exact) < 1.25 * dense


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("outputs", "inputs", "group_size"), [*SHAPES, (4096, 4096, 128), (33, 96, 32)])
def test_int4_on_a_gpu_equals_dequantized_weights(outputs, inputs, group_size, dtype):
    cuda = torch.device("cuda")
    for order in (False, True):
        weight, bias = quantized(outputs, inputs, group_size, order=order), torch.randn(outputs).to(dtype)
        layer = make_linear([weight], [bias], dtype, cuda, Kernels())
        for rows in ROWS:
            x = torch.randn(rows, inputs).to(dtype)
            exact = x.double() @ weight.dequantize().double().T + bias.double()
            error = BFLOAT16_ERROR if dtype == torch.bfloat16 else BFLOAT16_ERROR / 8
            assert relative_error(layer(x.to(cuda)), exact) < error, (rows, order)
