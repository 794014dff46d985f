"""The KV cache in 8 and 4 bits: what a vector becomes, what the model computes from it, what it takes."""

import random

import pytest
import torch

from slurminfer.core.errors import EngineError
from slurminfer.nodes.native.__main__ import main
from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.model.attention import attend
from slurminfer.nodes.native.model.batch import make_batch
from slurminfer.nodes.native.model.kv_budget import block_bytes, count_blocks
from slurminfer.nodes.native.model.kv_cache import KVCache
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.quant.checkpoint.config import parse_config
from slurminfer.quant.kv import hadamard, make_format, pack4, unpack4

from .conftest import DEVICE, make_model

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
BLOCK, KV_HEADS, HEAD_DIM = 16, 3, 64
CONFIG = parse_config(
    {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 9,
        "hidden_size": 9 * HEAD_DIM,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 9,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 1024,
    },
    "config.json",
)
QUANTIZED = ["int8", "int4"]


def _stored(kind, kv, dtype=torch.float32):
    """Keys and values [tokens, 2, heads, head_dim] written into a cache and read back, their rotation undone."""
    return _write_and_read(make_format(kind, HEAD_DIM, dtype, CPU), kv)


def _write_and_read(format, kv):
    tokens = len(kv)
    cache = KVCache(CONFIG, 20, BLOCK, format, CPU)
    blocks = torch.tensor(random.Random(0).sample(range(20), -(-tokens // BLOCK)))
    places = torch.arange(tokens)
    cache.write(1, cache.slots(blocks[places // BLOCK], places % BLOCK), kv)
    keys, values = cache.gather(1, cache.rows(blocks.unsqueeze(0)), 1)
    assert keys.dtype == format.read_dtype
    keys = format.rotate(keys)  # the rotation is its own inverse
    return torch.stack((keys[0], values[0])).permute(2, 0, 1, 3)[:tokens]


def _error(found, exact):
    """Of each vector, relative to its length."""
    return (found - exact).norm(dim=-1) / exact.norm(dim=-1)


# Rounding to steps of s has an error of s / sqrt(12). Of 64 normal numbers the largest is about 2.4 from 0 and the
# range is about 4.6: s = 2.4 / 127 and 4.6 / 15, relative to a length of 1 per channel 0.0055 and 0.089.
@pytest.mark.parametrize(("kind", "expected"), [("int8", 0.0055), ("int4", 0.089)])
def test_a_random_vector_comes_back_with_the_error_of_its_step(kind, expected):
    kv = torch.randn(70, 2, KV_HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(0))
    errors = _error(_stored(kind, kv), kv)
    assert 0.8 * expected < errors.mean() < 1.25 * expected
    assert errors.max() < 2 * expected


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 3e3])
def test_the_error_does_not_depend_on_the_size_of_a_token(kind, scale):
    kv = torch.randn(40, 2, KV_HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(1))
    alone = _error(_stored(kind, kv), kv).mean()
    kv[::2] *= scale
    assert _error(_stored(kind, kv), kv)[::2].mean() < 1.2 * alone


@pytest.mark.parametrize("kind", QUANTIZED)
def test_vectors_of_zeros_and_of_one_number_come_back(kind):
    kv = torch.zeros(4, 2, KV_HEADS, HEAD_DIM)
    kv[1], kv[2] = 3.0, -0.5
    found = _stored(kind, kv)
    assert found.isfinite().all()
    torch.testing.assert_close(found, kv, rtol=0.02, atol=1e-6)


def test_rotated_keys_bear_outliers_that_leave_other_channels_no_codes():
    kv = torch.randn(64, 2, KV_HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(2))
    kv[..., 5] = 40.0  # the channel of an outlier, as keys have them; values have not, but show the difference
    keys, values = ((_stored("int4", kv) - kv)[:, i, :, torch.arange(HEAD_DIM) != 5].norm() for i in range(2))
    assert keys < 0.6 * values


@pytest.mark.parametrize("size", [4, 24, 64, 80, 96, 128])
def test_the_rotation_is_orthogonal_symmetric_and_spreads(size):
    rotation = hadamard(size)
    torch.testing.assert_close(rotation @ rotation, torch.eye(size))
    assert torch.equal(rotation, rotation.T)
    block = size & -size  # the largest power of two in it
    assert rotation.abs().max() == pytest.approx(block**-0.5)


def test_the_plain_operations_read_what_the_cpu_kernels_write_and_the_other_way_round():
    x = torch.randn(200, HEAD_DIM, generator=torch.Generator().manual_seed(3)) * torch.logspace(-3, 3, 200).unsqueeze(1)
    kernel, plain = torch.ops.quantized.embedding_bag_4bit_prepack(x), pack4(x)
    assert kernel.shape == plain.shape == (200, HEAD_DIM // 2 + 4)
    step = (x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)) / 15
    for records in (kernel, plain):
        unpacked = unpack4(records)
        read = torch.ops.quantized.embedding_bag_4bit_rowwise_offsets(records, torch.arange(200), torch.arange(200))
        torch.testing.assert_close(unpacked, read, rtol=1e-5, atol=1e-5)
        assert ((unpacked - x).abs() <= 0.52 * step).all()  # half a step, and float16's rounding of scale and minimum


def test_a_device_without_these_kernels_stores_the_same():
    kv = torch.randn(70, 2, KV_HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(5))
    format = make_format("int4", HEAD_DIM, torch.float32, CPU)
    format.by_vector = False  # as on a GPU
    found, expected = _write_and_read(format, kv), _stored("int4", kv)
    # A number in the middle between two codes may become either.
    assert ((found - expected).norm(dim=-1) > 1e-5 * kv.norm(dim=-1)).float().mean() < 0.02


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.015), ("int4", 0.2)])
@pytest.mark.parametrize("window", [None, 5, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decode_attention_is_that_of_exact_keys_and_values_but_for_their_errors(kind, most, window, dtype):
    generator = torch.Generator().manual_seed(4)
    lengths = (700, 390, 9, 8, 1)
    exact, quantized = (KVCache(CONFIG, 90, BLOCK, make_format(k, HEAD_DIM, dtype, CPU), CPU) for k in ("auto", kind))
    free = random.Random(0).sample(range(90), 90)
    chunks = []
    for length in lengths:
        blocks = [free.pop() for _ in range(-(-length // BLOCK))]
        chunks.append(Chunk([0], length - 1, blocks, num_logits=1))
        kv = torch.randn(length, 2, KV_HEADS, HEAD_DIM, generator=generator).to(dtype)
        places = torch.tensor(blocks).repeat_interleave(BLOCK)[:length]
        for cache in (exact, quantized):
            cache.write(1, cache.slots(places, torch.arange(length) % BLOCK), kv)
    q = torch.randn(len(lengths), 9, HEAD_DIM, generator=generator).to(dtype)
    none = torch.empty(len(lengths), 2, KV_HEADS, HEAD_DIM)
    plans = [make_batch(chunks, cache, {window}, None).plans[window] for cache in (exact, quantized)]
    expected, found = (attend(q, none, 1, c, p) for c, p in zip((exact, quantized), plans, strict=True))
    assert found.dtype == dtype
    # Errors of values average out over the tokens; those of keys shift probabilities by as much as the scores.
    assert (_error(found.float(), expected.float()) < most).all()


def _prompt(length, seed=0):
    return random.Random(seed).choices(range(199), k=length)


@pytest.fixture(scope="module", params=["llama", "llama multi-head, head_dim", "qwen2 window in part", "qwen3"])
def attention_pair(request, tmp_path_factory):
    """A model of each kind of attention, as `pair`: variants that differ in what is before it write the same here."""
    path = tmp_path_factory.mktemp("model")
    return path, make_model(path, request.param)


# A layer's attention has the relative error of its keys and values, 0.5%, and three layers add theirs; these random
# models are sharper than trained ones, which multiplies it. float32, so that nothing else differs.
def test_logits_with_int8_are_close_to_those_without(attention_pair, load, drive):
    path, _ = attention_pair
    plain, quantized = (drive(load(path, kv_cache_dtype=kind)) for kind in ("auto", "int8"))
    sequences = [driver.add(_prompt(60)) for driver in (plain, quantized)]
    for _ in range(4):
        for driver, sequence in zip((plain, quantized), sequences, strict=True):
            driver.step((sequence, 15))
    expected, found = (sequence.logits[0] for sequence in sequences)
    assert 0 < (found - expected).norm() / expected.norm() < 0.05


def test_greedy_tokens_with_int8_are_mostly_those_without(attention_pair, load, drive):
    path, _ = attention_pair
    same = 0
    for seed in range(8):
        plain, quantized = (drive(load(path, kv_cache_dtype=kind)) for kind in ("auto", "int8"))
        one, other = (driver.finish(driver.add(_prompt(37, seed)), 8) for driver in (plain, quantized))
        same += sum(a == b for a, b in zip(one, other, strict=True))
    assert same >= 0.7 * 64  # after the first that differs, all may


def test_a_prompt_computed_at_once_attends_to_its_exact_keys_and_values(attention_pair, load, drive):
    path, _ = attention_pair
    expected, *found = (drive(load(path, kv_cache_dtype=kind)) for kind in ("auto", "int8", "int4"))
    prompt = _prompt(9)  # within every window
    tokens = [driver.add(prompt) for driver in (expected, *found)]
    for driver, sequence in zip((expected, *found), tokens, strict=True):
        driver.step((sequence, 9))
        torch.testing.assert_close(sequence.logits[0], tokens[0].logits[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_chunks_in_a_mixed_batch_compute_what_they_compute_alone(attention_pair, load, drive, kind):
    path, _ = attention_pair
    together, alone = (drive(load(path, kv_cache_dtype=kind), seed) for seed in (0, 1))
    first, second, third = (together.add(_prompt(n, seed=n)) for n in (5, 41, 90))
    together.step((first, 5))
    together.step((second, 3), (first, 1))
    together.step((first, 1), (second, 20), (third, 33))
    together.step((third, 57), (first, 1), (second, 18))
    while len(third.generated) < 16:
        together.step((third, 1), (first, 1), (second, 1))
    for sequence, chunks in ((first, [5]), (second, [3, 20, 18]), (third, [33, 57])):
        again = alone.add(sequence.prompt)
        for count in chunks:
            alone.step((again, count))
        assert alone.finish(again, 16) == sequence.generated[:16]
        # A GPU's products round differently in another batch, and a code becomes its neighbour now and then.
        tolerance = 1e-2 if DEVICE == "cpu" else 0.2
        torch.testing.assert_close(torch.stack(again.logits), torch.stack(sequence.logits[:16]), atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_shared_prefix_is_what_the_follower_would_have_written(attention_pair, load, drive, kind):
    path, _ = attention_pair
    shared, alone = (drive(load(path, kv_cache_dtype=kind), seed) for seed in (0, 1))
    original = shared.add(_prompt(50))
    shared.step((original, 40))
    shared.finish(original, 1)
    follower = shared.add([*original.prompt[:45], 1, 2, 3], shared=original)
    assert follower.computed == 40
    again = alone.add(follower.prompt)
    alone.step((again, 40))
    assert shared.finish(follower, 16) == alone.finish(again, 16)


def test_requests_that_outgrow_the_cache_together_are_preempted_and_say_mostly_what_they_say_alone(
    make, load, tmp_path
):
    make(tmp_path, "llama")
    prefix = _prompt(20)
    requests = {str(i): [*prefix, *_prompt(15, seed=i + 1)] for i in range(4)}

    def run(kv_cache_gib, *ids):
        runner = load(tmp_path, kv_cache_dtype="int8", kv_cache_gib=kv_cache_gib, context_length=64)
        core = EngineCore(runner, EngineOptions(model=tmp_path, max_running_requests=4, max_batch_tokens=32))
        tokens: dict[str, list[int]] = {id: [] for id in ids}
        for id in ids:
            core.add(Request(id, requests[id], SamplingParams(max_tokens=24, temperature=0)))
        while core.busy:
            for output in core.step():
                tokens[output.request.id].append(output.token)
        return tokens, core.stats()

    vectors = 3 * 2 * 2 * 8  # layers, key and value, heads, tokens
    together, stats = run(vectors * 18 * 16.5 / 2**30, *requests)  # 16 blocks, where each may take 8
    assert stats.kv_blocks_total == 16
    assert stats.preemptions > 0
    assert stats.prefix_cache_hit_tokens > 0
    alone = {id: run(0.05, id)[0][id] for id in requests}
    assert {id: len(tokens) for id, tokens in together.items()} == dict.fromkeys(requests, 24)
    # What is computed again is computed in other chunks: a little else is exact, and a little else quantized.
    same = sum(a == b for id in requests for a, b in zip(together[id], alone[id], strict=True))
    assert same >= 0.7 * 4 * 24


# 2 layers x key and value x 3 heads x 16 tokens = 192 vectors a block.
@pytest.mark.parametrize(
    ("kind", "dtype", "vector"),
    [
        ("auto", torch.float32, 256),
        ("auto", torch.bfloat16, 128),
        ("int8", torch.bfloat16, 66),  # 64 codes, a scale: 1.94 times the tokens
        ("int8", torch.float32, 66),
        ("int4", torch.bfloat16, 36),  # 32 bytes of codes, a scale, a minimum: 3.56 times the tokens
    ],
)
def test_a_block_takes_codes_and_scales(kind, dtype, vector):
    format = make_format(kind, HEAD_DIM, dtype, CPU)
    assert block_bytes(CONFIG, BLOCK, format) == 192 * vector
    assert count_blocks(CONFIG, 1024, BLOCK, format, 192 * vector * 100 - 1) == 99
    cache = KVCache(CONFIG, 5, BLOCK, format, CPU)
    assert sum(part.nbytes for layer in cache._rows for part in layer) == 5 * 192 * vector


def test_the_same_memory_holds_more_tokens(make, load, tmp_path):
    make(tmp_path, "llama")
    blocks = {kind: load(tmp_path, kv_cache_dtype=kind).num_blocks for kind in ("auto", "int8", "int4")}
    budget, vectors = int(0.05 * 2**30), 3 * 2 * 2 * 8  # layers, key and value, heads, tokens
    assert blocks == {
        "auto": budget // (vectors * 64),
        "int8": budget // (vectors * 18),
        "int4": budget // (vectors * 12),
    }


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(EngineError, match=r"kv_cache_dtype = 'int4': the model's heads have 30 channels"):
        make_format("int4", 30, torch.float32, CPU)


def test_the_command_line_lists_what_it_takes(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--model", "x", "--kv-cache-dtype", "fp8"])
    assert "choose from auto, int8, int4" in capsys.readouterr().err.replace("'", "")
