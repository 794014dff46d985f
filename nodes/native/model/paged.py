"""Decode attention that reads keys and values where they lie in the KV cache.

Gathering a sequence's blocks first, as attention.py does elsewhere, moves every key and value once more than needed.
For float32 on a CPU, PyTorch has two kernels that take the places as indices, made for other ends:

    scores = sampled_addmm   dot products at the places of a sparse matrix [query heads, tokens in the cache]
    output = embedding_bag   sums of table rows (the cached values), weighted by the probabilities

Together they take about half the time of gathering and scaled_dot_product_attention. Other dtypes, quantized caches
and other devices lack them.
"""

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ....quant.kv import KVFormat
from .kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class PagedGroup:
    """Decode tokens of sequences of about one length, attended to together."""

    rows: slice
    keys: torch.Tensor  # sparse CSR [sequences * heads, token rows of the cache]: a place for every score
    values: torch.Tensor  # int64 [sequences * heads, length]: token rows
    mask: torch.Tensor | None  # [sequences, 1, length], added to the scores


@dataclass(frozen=True, slots=True)
class BlockGroup:
    """Decode tokens of sequences of any length, attended to together where their blocks lie."""

    rows: slice
    tables: torch.Tensor  # int32 [sequences, blocks], rows of any stride; what a sequence has not got is never read
    lengths: torch.Tensor  # int32 [sequences]: tokens in the cache, the newest included; 0: nobody's row
    window: int | None


def supports(format: KVFormat, device: torch.device) -> bool:
    """Whether decode tokens can attend to keys in place: only in an unquantized float32 cache on a CPU."""
    return device.type == "cpu" and format.parts[0][1] == torch.float32


def make_group(
    rows: slice, tables: torch.Tensor, length: int, mask: torch.Tensor | None, heads: int, cache: KVCache
) -> PagedGroup:
    """A group for block tables [sequences, blocks], of which the first `length` tokens count."""
    places = cache.token_rows(tables)[..., :length].unsqueeze(3)
    places = places.expand(-1, -1, -1, heads // cache.kv_heads, -1)
    keys, values = places[:, 0].reshape(-1), places[:, 1].reshape(-1, length)
    return PagedGroup(rows, _pattern(keys, length, cache.num_token_rows), values, mask)


def attend_paged(q: torch.Tensor, tokens: torch.Tensor, group: PagedGroup) -> torch.Tensor:
    """[sequences, heads * head_dim] of queries [sequences, heads, head_dim]; `tokens` are one layer's token rows."""
    count, heads, head_dim = q.shape
    queries = q.reshape(count * heads, head_dim)
    scores = torch.sparse.sampled_addmm(group.keys, queries, tokens.t(), beta=0.0, alpha=head_dim**-0.5).values()
    scores = scores.view(count, heads, -1)
    if group.mask is not None:
        scores = scores.add_(group.mask)
    weights = scores.softmax(-1).view(count * heads, -1)
    out = F.embedding_bag(group.values, tokens, mode="sum", per_sample_weights=weights)
    return out.view(count, heads * head_dim)


def _pattern(columns: torch.Tensor, per_row: int, width: int) -> torch.Tensor:
    starts = torch.arange(0, len(columns) + 1, per_row)
    with warnings.catch_warnings():  # "CSR tensor support is in beta state", once in a process
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            starts, columns, torch.zeros(len(columns)), (len(starts) - 1, width), check_invariants=False
        )
