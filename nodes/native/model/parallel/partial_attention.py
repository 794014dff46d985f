"""Attention to the keys that one sequence rank holds, with the sums that merging it with the others' needs."""

from dataclasses import dataclass

import torch

from ..kv_cache import KVCache

_SCORES_MOST = 1 << 24  # computed at once where PyTorch has no kernel that returns their sums


@dataclass(frozen=True, slots=True)
class PartialAttention:
    """Rows that attend together to keys that this rank holds: a decode token of each of some sequences, or a chunk."""

    rows: slice
    sequences: int
    cache_rows: torch.Tensor | None  # for KVCache.gather; None: the step's own keys and values, of `fresh` rows
    fresh: torch.Tensor | None
    length: int  # keys to keep of what was gathered
    mask: torch.Tensor  # [sequences, rows of one, length], added to the scores
    blind: torch.Tensor | None  # rows of the piece that see none of the keys

    def attend(
        self, queries: torch.Tensor, pairs: torch.Tensor, layer: int, cache: KVCache, parts: torch.Tensor
    ) -> None:
        """Write the rows' attention and the logarithms of its sums (-inf: sees no key) to their places in `parts`."""
        out, sums = _attend(queries[self.rows], pairs, layer, cache, self)
        if self.blind is not None:
            out[self.blind], sums[self.blind] = 0, -torch.inf
        parts[self.rows, :, :-1], parts[self.rows, :, -1] = out, sums


def _attend(
    q: torch.Tensor, pairs: torch.Tensor, layer: int, cache: KVCache, piece: PartialAttention
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention [n, heads, head_dim] of q of that shape, and the logarithms [n, heads] of the sums."""
    count, heads, head_dim = q.shape
    group = heads // cache.kv_heads
    if piece.cache_rows is not None:
        keys, values = (x[:, :, : piece.length] for x in cache.gather(layer, piece.cache_rows, piece.sequences))
        q = cache.format.rotate(q).to(keys.dtype)
    else:
        assert piece.fresh is not None
        keys, values = (x.transpose(0, 1).unsqueeze(0) for x in pairs[piece.fresh].unbind(1))
    mask = piece.mask
    if count == piece.sequences:  # the heads that share a key-value head are the rows of one small query matrix
        out, sums = _kernel(q.view(count, cache.kv_heads, group, head_dim), keys, values, mask.unsqueeze(1))
        return out.reshape(count, heads, head_dim), sums.reshape(count, heads)
    q = q.view(count, cache.kv_heads, group, head_dim).permute(1, 2, 0, 3)
    keys, values = (x.transpose(0, 1).expand(-1, group, -1, -1) for x in (keys, values))
    out, sums = _kernel(q, keys, values, mask.unsqueeze(0))
    return out.permute(2, 0, 1, 3).reshape(count, heads, head_dim), sums.permute(2, 0, 1).reshape(count, heads)


def _kernel(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention [b, heads, n, head_dim] of q of that shape, and the float32 logarithms [b, heads, n] of its sums."""
    if q.device.type == "cpu":
        out, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, keys, values, attn_mask=mask)
        return out, sums
    return attend_in_slices(q, keys, values, mask, _SCORES_MOST)


def attend_in_slices(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention and the logarithms of its sums in float32, with about `most` scores in memory at once.

    q is [b, heads, n, head_dim], keys and values [b, heads, length, head_dim], the mask is added to the scores.
    Returns [b, heads, n, head_dim] and [b, heads, n]; a row that sees no key gives zeros and -inf.
    """
    rows = max(most // (q.shape[0] * q.shape[1] * keys.shape[2]), 1)
    masks = mask.expand(-1, -1, q.shape[2], -1)
    pieces = zip(torch.split(q, rows, 2), torch.split(masks, rows, 2), strict=True)
    outs, sums = zip(*(_attend_slice(*piece, keys, values) for piece in pieces), strict=True)
    return torch.cat(outs, 2), torch.cat(sums, 2)


def _attend_slice(
    q: torch.Tensor, mask: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = (q.float() @ keys.float().mT).mul_(q.shape[-1] ** -0.5).add_(mask)
    sums = scores.logsumexp(-1)
    weights = scores.sub_(sums.clamp_min(torch.finfo(sums.dtype).min).unsqueeze(-1)).exp_()
    return weights @ values.float(), sums
