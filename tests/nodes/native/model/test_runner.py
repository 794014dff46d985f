"""Loading a model: options that cannot be met say so, memory is taken when it is used."""

import psutil
import pytest
import torch

from slurminfer.core.errors import EngineError, UnsupportedModelError
from slurminfer.nodes.native.model.linears.dense import Dense
from slurminfer.nodes.native.model.linears.table import Kernels, make_linear


@pytest.fixture
def model(make, tmp_path):
    make(tmp_path, "llama")
    return tmp_path


def test_attributes_follow_the_model_and_the_options(model, load):
    runner = load(model, block_size=4, kv_cache_gib=0.01, context_length=100)
    block_bytes = 3 * 2 * 2 * 4 * 16 * 4  # layers, key and value, heads, tokens, head_dim, float32
    assert (runner.vocab_size, runner.context_length, runner.block_size) == (199, 100, 4)
    assert runner.num_blocks == int(0.01 * 2**30) // block_bytes
    assert load(model).context_length == 256


def test_a_context_longer_than_the_model_s_is_refused(model, load):
    with pytest.raises(EngineError, match=r"context_length = 300.*max_position_embeddings = 256"):
        load(model, context_length=300)


def test_a_kv_cache_too_small_for_one_sequence_says_what_to_set(model, load):
    with pytest.raises(EngineError, match=r"may have 256: .*kv-cache-gib to 0\.01 or more.* lower context_length"):
        load(model, kv_cache_gib=0.0001)
    assert load(model, kv_cache_gib=0.01).num_blocks * 8 >= 256


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_a_gpu_is_refused(model, load):
    with pytest.raises(EngineError, match="cuda"):
        load(model, device="cuda")


def test_an_unsupported_architecture_is_refused(model, load):
    config = model / "config.json"
    config.write_text(config.read_text().replace("LlamaForCausalLM", "GemmaForCausalLM"))
    with pytest.raises(UnsupportedModelError, match="GemmaForCausalLM"):
        load(model)


def test_the_kv_cache_takes_memory_only_when_written(model, load):
    before = psutil.Process().memory_info().rss
    runner = load(model, kv_cache_gib=2)
    assert runner.num_blocks > 80_000
    assert psutil.Process().memory_info().rss - before < 256 * 2**20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_every_kernel_computes_the_same_product(dtype, rows):
    torch.manual_seed(0)
    weights, biases = [torch.randn(n, 48) for n in (40, 24)], [torch.randn(n) for n in (40, 24)]
    weights, biases = ([x.to(dtype) for x in xs] for xs in (weights, biases))
    x = torch.randn(rows, 48, dtype=dtype)
    exact = torch.cat([x.double() @ w.double().T + b.double() for w, b in zip(weights, biases, strict=True)], -1)
    merged = make_linear(weights, biases, dtype, torch.device("cpu"), Kernels())
    plain = Dense(torch.cat(weights), torch.cat(biases))
    tolerance = 64 * torch.finfo(dtype).eps
    for linear in (merged, plain):
        torch.testing.assert_close(linear(x).double(), exact, atol=tolerance, rtol=tolerance)
