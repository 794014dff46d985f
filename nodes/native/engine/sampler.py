"""From logits to tokens. Every row's draw depends on that row alone, so that a seed gives the same tokens in any batch.

The order is that of vLLM: grammars, logit_rules.py, temperature, min_p, top_k, top_p, each over what the one before it
has left.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .logit_rules import apply_rules
from .mask import has_masks, masked
from .request import Request, Sample, SamplingParams, TokenLogprobs

# So many of the best tokens nearly always hold all that top_k and top_p leave; sorting all tokens costs 50 times more.
_CANDIDATES = 256
_SMALLEST_TOP_P = 1e-9  # leaves the best token
# Below, logits / temperature leave what float32 can tell apart, or float32 itself.
_SMALLEST_TEMPERATURE = 1e-5


@torch.inference_mode()
def sample(logits: Tensor, requests: Sequence[Request]) -> list[Sample]:
    """Choose a token for each row of `logits` (float32 [len(requests), vocab])."""
    reports = any(request.params.logprobs is not None for request in requests)  # what the model gives without masks
    tokens = _choose(logits.clone() if reports and has_masks(requests) else logits, requests)
    logprobs = _logprobs(logits, requests, tokens)
    return [Sample(token, logprobs.get(row)) for row, token in enumerate(tokens)]


def _choose(logits: Tensor, requests: Sequence[Request]) -> list[int]:
    logits = apply_rules(masked(logits, requests), requests)
    drawn = [row for row, request in enumerate(requests) if request.params.temperature >= _SMALLEST_TEMPERATURE]
    if len(drawn) == len(requests):
        return _draw(logits, requests)
    tokens: list[int] = logits.max(-1).indices.tolist()  # several times faster than argmax on a CPU
    if drawn:
        for row, token in zip(drawn, _draw(logits[drawn], [requests[row] for row in drawn]), strict=True):
            tokens[row] = token
    return tokens


def _draw(logits: Tensor, requests: Sequence[Request]) -> list[int]:
    """Sample rows that are not greedy by inverting their distribution functions at one uniform number each."""
    params = [request.params for request in requests]
    vocab = logits.shape[-1]
    logits = logits / _column([p.temperature for p in params], logits)
    uniforms = _column([request.uniform() for request in requests], logits)
    tokens = torch.empty(len(params), dtype=torch.long, device=logits.device)
    cut = [row for row, p in enumerate(params) if p.top_p < 1 or 0 < p.top_k < vocab]
    whole = [row for row, p in enumerate(params) if not (p.top_p < 1 or 0 < p.top_k < vocab)]
    if cut:
        tokens[cut] = _draw_cut(logits[cut], [params[row] for row in cut], uniforms[cut], _CANDIDATES)
    if whole:
        tokens[whole] = _draw_whole(logits[whole], [params[row] for row in whole], uniforms[whole])
    return tokens.tolist()


def _draw_whole(logits: Tensor, params: Sequence[SamplingParams], uniforms: Tensor) -> Tensor:
    """Rows with neither top_k nor top_p: over the vocabulary in its own order."""
    probs = logits.softmax(-1)
    if any(p.min_p for p in params):
        probs = probs.where(probs >= _column([p.min_p for p in params], probs) * probs.amax(-1, keepdim=True), 0.0)
    return _invert(probs, uniforms)


def _draw_cut(logits: Tensor, params: Sequence[SamplingParams], uniforms: Tensor, width: int) -> Tensor:
    """Rows with top_k or top_p: over their `width` best tokens, best first; over all where these do not suffice."""
    vocab = logits.shape[-1]
    width = min(width, vocab)
    probs, indices = _best(logits, width)
    top_k = torch.tensor([min(p.top_k or vocab, vocab) for p in params], device=logits.device)[:, None]
    top_p = _column([max(p.top_p, _SMALLEST_TOP_P) for p in params], logits)
    min_p = _column([p.min_p for p in params], logits)
    floor = min_p * probs[:, :1]
    enough = (top_k <= width) | (probs[:, -1:] < floor) | ((min_p == 0) & (top_k >= vocab) &
                                                          (probs.sum(-1, keepdim=True) >= top_p))  # fmt: skip
    left = probs.where((probs >= floor) & (torch.arange(width, device=probs.device) < top_k), 0.0)
    total = left.sum(-1, keepdim=True)
    total = torch.where((min_p == 0) & (top_k >= vocab), 1.0, total)  # the mass is the whole vocabulary's
    before = left.cumsum(-1) - left
    chosen = indices.gather(-1, _invert(left.where(before < top_p * total, 0.0), uniforms)[:, None])[:, 0]
    short = (~enough[:, 0]).nonzero()[:, 0].tolist() if width < vocab else []
    if short:
        chosen[short] = _draw_cut(logits[short], [params[row] for row in short], uniforms[short], vocab)
    return chosen


def _best(logits: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Probabilities and indices [n, width] of each row's best tokens.

    A row's are the same to the bit in any company. They would not be with logsumexp: PyTorch splits the sum of a single
    row over its threads, and that of one of many rows not.
    """
    indices = logits.topk(width).indices
    return logits.softmax(-1).gather(-1, indices), indices


def _invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The index of each row at which the running sum of `weights` [n, m] passes the fraction `uniforms` [n, 1]."""
    sums = weights.cumsum(-1)
    total = sums[:, -1:]
    # A fraction that rounds to 1 would pass the last weight, and find one that is 0.
    target = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    found = torch.searchsorted(sums, target, right=True)[:, 0]
    return found.clamp(max=weights.shape[-1] - 1)


def _logprobs(logits: Tensor, requests: Sequence[Request], tokens: Sequence[int]) -> dict[int, TokenLogprobs]:
    """Log-probabilities of the rows that want them."""
    rows = [row for row, request in enumerate(requests) if request.params.logprobs is not None]
    if not rows:
        return {}
    logprobs = logits[rows].log_softmax(-1)
    chosen = logprobs.gather(-1, torch.tensor([[tokens[row]] for row in rows], device=logits.device))[:, 0].tolist()
    wanted = [requests[row].params.logprobs or 0 for row in rows]
    values, indices = (best.tolist() for best in logprobs.topk(min(max(wanted), logits.shape[-1])))
    return {
        row: TokenLogprobs(chosen[i], tuple(zip(indices[i][:count], values[i][:count], strict=True)))
        for i, (row, count) in enumerate(zip(rows, wanted, strict=True))
    }


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]
