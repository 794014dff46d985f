"""Sizes by formula are those that the torch side allocates, and nothing of torch is imported for them."""

import subprocess
import sys
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import torch

from slurminfer.core import sizes
from slurminfer.core.errors import EngineError
from slurminfer.nodes.native.model.kv_budget import block_bytes
from slurminfer.nodes.native.model.kv_cache import KVCache
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.quant import kv
from slurminfer.quant.checkpoint import awq
from slurminfer.quant.checkpoint.config import parse_config
from slurminfer.quant.gguf.layouts import BLOCK, LAYOUTS

CPU = torch.device("cpu")
CONFIG = parse_config(
    {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 100,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    },
    "config.json",
)
KINDS = get_args(sizes.KVCacheDtype)
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def test_the_engine_takes_the_same_kinds():
    assert get_args(get_type_hints(EngineOptions)["kv_cache_dtype"]) == KINDS


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [4, 12, 64, 80, 128])
@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_is_as_large_as_its_format_stores_it(kind, head_dim, dtype):
    format = kv.make_format(kind, head_dim, dtype, CPU)
    encoded = format.encode(torch.ones(1, 2, 1, head_dim, dtype=dtype))
    stored = sum(part[0].numel() * part.itemsize for part in encoded)
    assert sizes.kv_vector_bytes(head_dim, kind, dtype.itemsize) == kv.vector_bytes(format) == stored


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head_dim", [8, 64])
def test_blocks_and_tokens_are_as_large_as_the_cache_has_them(kind, head_dim, dtype):
    config, format = replace(CONFIG, head_dim=head_dim), kv.make_format(kind, head_dim, dtype, CPU)
    cache = KVCache(config, 5, 16, format, CPU)
    shape = (config.num_layers, config.num_kv_heads, head_dim)
    token, block = (
        sizes.kv_token_bytes(*shape, kind, dtype.itemsize),
        sizes.kv_block_bytes(*shape, 16, kind, dtype.itemsize),
    )
    assert (token, block) == (cache.bytes_per_token, block_bytes(config, 16, format))
    parts = [part for layer in range(config.num_layers) for part in cache.parts(layer)]
    assert sum(part.numel() * part.itemsize for part in parts) == 5 * block


@pytest.mark.parametrize("head_dim", [2, 6, 70])
def test_heads_that_int4_cannot_hold_are_refused_on_both_sides(head_dim):
    said = f"kv_cache_dtype = 'int4': the model's heads have {head_dim} channels, no multiple of 4"
    with pytest.raises(EngineError, match=said):
        sizes.kv_vector_bytes(head_dim, "int4")
    with pytest.raises(EngineError, match=said):
        kv.make_format("int4", head_dim, torch.float32, CPU)


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_awq_weights_are_as_large_as_their_tensors(group_size):
    outputs, inputs = 24, 256
    groups = inputs // group_size
    tensors = [
        awq.pack(torch.zeros(inputs, outputs, dtype=torch.uint8)),
        awq.pack(torch.zeros(groups, outputs, dtype=torch.uint8)),
        torch.zeros(groups, outputs, dtype=torch.float16),
    ]
    stored = sum(tensor.numel() * tensor.itemsize for tensor in tensors)
    assert sizes.weight_bytes(outputs * inputs, 4, group_size, 20) == stored


@pytest.mark.parametrize("name", LAYOUTS)
def test_gguf_blocks_are_as_large_as_their_layout(name):
    layout = LAYOUTS[name]
    assert sizes.weight_bytes(10 * BLOCK, layout.bits, BLOCK, 16 * layout.floats) == 10 * layout.nbytes


def test_weights_without_groups_and_odd_bits():
    assert sizes.weight_bytes(1000, 16) == torch.zeros(1000, dtype=torch.bfloat16).nbytes
    assert sizes.weight_bytes(3, 4) == 2  # whole bytes
    assert sizes.weight_bytes(33, 8, 32, 16) == 33 + 2 * 2  # the last group is short


def test_sizes_need_no_torch():
    code = "import sys, slurminfer.core.sizes; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
