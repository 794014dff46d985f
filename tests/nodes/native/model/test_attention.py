"""Both ways to attend, in place and by gathering, are the attention of the formula."""

import random

import pytest
import torch

from slurminfer.nodes.native.model.attention import attend
from slurminfer.nodes.native.model.batch import make_batch
from slurminfer.nodes.native.model.kv_cache import KVCache
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.quant.checkpoint.config import parse_config
from slurminfer.quant.kv import Plain

HEADS, KV_HEADS, HEAD_DIM, BLOCK = 6, 2, 16, 4
LENGTHS = (700, 390, 9, 8, 1)  # of the sequences whose newest token is computed
CONFIG = parse_config(
    {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 9,
        "hidden_size": HEADS * HEAD_DIM,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 1024,
    },
    "config.json",
)


@pytest.mark.parametrize("paged_heads", [None, HEADS], ids=["gathered", "in place"])
@pytest.mark.parametrize("window", [None, 5, 300])
def test_decode_attention_is_softmax_of_scaled_scores(paged_heads, window):
    torch.manual_seed(0)
    cache = KVCache(CONFIG, 400, BLOCK, Plain(HEAD_DIM, torch.float32), torch.device("cpu"))
    free = random.Random(0).sample(range(400), 400)
    chunks, sequences = [], []
    for length in LENGTHS:
        blocks = [free.pop() for _ in range(-(-length // BLOCK))]
        chunks.append(Chunk([0], length - 1, blocks, num_logits=1))
        kv = torch.randn(length, 2, KV_HEADS, HEAD_DIM)
        places = torch.tensor(blocks).repeat_interleave(BLOCK)[:length]
        cache.write(1, cache.slots(places, torch.arange(length) % BLOCK), kv)
        sequences.append(kv)
    q = torch.randn(len(LENGTHS), HEADS, HEAD_DIM)
    batch = make_batch(chunks, cache, {window}, paged_heads)
    out = attend(q, torch.empty(len(LENGTHS), 2, KV_HEADS, HEAD_DIM), 1, cache, batch.plans[window])
    expected = torch.stack([_attention(*pair, window) for pair in zip(q, sequences, strict=True)])
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def _attention(q, kv, window):
    keys, values = kv[-(window or len(kv)) :].repeat_interleave(HEADS // KV_HEADS, dim=2).unbind(1)
    scores = torch.einsum("hd,thd->ht", q, keys) / HEAD_DIM**0.5
    return torch.einsum("ht,thd->hd", scores.softmax(-1), values).flatten()
