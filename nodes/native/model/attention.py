"""Grouped-query attention of one mixed step over the paged KV cache."""

import torch
import torch.nn.functional as F

from ....quant.rope import Rotation, rotate
from .cuda import reads_cache
from .kv_cache import KVCache
from .paged import BlockGroup, PagedGroup, attend_paged
from .plan import AttentionPlan, DecodeGroup, Prefill


def rotate_and_store(
    qkv: torch.Tensor, rotation: Rotation, layer: int, cache: KVCache, slots: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate queries and keys of qkv [n, heads + 2 * kv_heads, head_dim], and write keys and values to the cache.

    Returns the queries [n, heads, head_dim], and keys and values [n, 2, kv_heads, head_dim]. `slots` are those of
    `KVCache.slots`.
    """
    if reads_cache(cache.format, cache.device):
        from .cuda import operations

        heads = qkv.shape[1] - 2 * cache.kv_heads
        return operations.rotate_and_store(qkv, *rotation, heads, cache.tokens(layer), slots)
    q, kv = rotated(qkv, rotation, cache.kv_heads)
    cache.write(layer, slots, kv)
    return q, kv


def rotated(qkv: torch.Tensor, rotation: Rotation, kv_heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate queries and keys of qkv [n, heads + 2 * kv_heads, head_dim] without writing them to the cache.

    Returns the queries [n, heads, head_dim], and keys and values [n, 2, kv_heads, head_dim].
    """
    qk, v = qkv[:, :-kv_heads], qkv[:, -kv_heads:]
    qk = rotate(qk, *rotation)
    heads = qk.shape[1] - kv_heads
    return qk[:, :heads], torch.cat((qk[:, heads:], v), 1).view(len(qkv), 2, kv_heads, qkv.shape[2])


def attend(q: torch.Tensor, kv: torch.Tensor, layer: int, cache: KVCache, plan: AttentionPlan) -> torch.Tensor:
    """Attention output [n, heads * head_dim] of queries [n, heads, head_dim].

    `kv` [n, 2, kv_heads, head_dim] are the step's own keys and values; they are in the cache already. A prompt's first
    chunk attends to these. Whatever comes later reads the cache, with the error of its format if that is quantized.
    """
    outputs = [_decode(q[group.rows], layer, cache, group) for group in plan.decodes]
    outputs += [attend_prefill(q[chunk.rows], kv[chunk.rows], layer, cache, chunk) for chunk in plan.prefills]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _decode(q: torch.Tensor, layer: int, cache: KVCache, group: DecodeGroup | PagedGroup | BlockGroup) -> torch.Tensor:
    if isinstance(group, BlockGroup):
        from .cuda.attention import attend_blocks

        return attend_blocks(q, layer, cache, group)
    if isinstance(group, PagedGroup):
        return attend_paged(q, cache.tokens(layer), group)
    return _attend_gathered(q, layer, cache, group)


def _attend_gathered(q: torch.Tensor, layer: int, cache: KVCache, group: DecodeGroup) -> torch.Tensor:
    """The heads that share a key-value head are the rows of one small query matrix: nothing is repeated."""
    count, heads, head_dim = q.shape
    keys, values = cache.gather(layer, group.cache_rows, count)
    keys, values = keys[:, :, : group.length], values[:, :, : group.length]
    queries = cache.format.rotate(q).to(keys.dtype).view(count, cache.kv_heads, heads // cache.kv_heads, head_dim)
    out = F.scaled_dot_product_attention(queries, keys, values, group.mask)
    return out.reshape(count, heads * head_dim).to(q.dtype)


def attend_prefill(q: torch.Tensor, kv: torch.Tensor, layer: int, cache: KVCache, chunk: Prefill) -> torch.Tensor:
    """Attention output [n, heads * head_dim] of the queries [n, heads, head_dim] of one prefill chunk.

    `kv` [n, 2, kv_heads, head_dim] are the chunk's own keys and values, which it attends to if it is the first.

    Key-value heads are the batch, the heads that share one are its heads: expanded, not copied.
    """
    count, heads, head_dim = q.shape
    group = heads // cache.kv_heads
    if chunk.cache_rows is None:
        keys, values = kv[:, 0].transpose(0, 1), kv[:, 1].transpose(0, 1)
    else:
        keys, values = (x[0, :, : chunk.length].to(q.dtype) for x in cache.gather(layer, chunk.cache_rows, 1))
        q = cache.format.rotate(q).to(q.dtype)
    q = q.view(count, cache.kv_heads, group, head_dim).permute(1, 2, 0, 3)
    keys, values = (x.unsqueeze(1).expand(-1, group, -1, -1) for x in (keys, values))
    out = F.scaled_dot_product_attention(q, keys, values, chunk.mask, is_causal=chunk.cache_rows is None)
    return out.permute(2, 0, 1, 3).reshape(count, heads * head_dim)
