"""What a request changes of the model's logits before a token is drawn: its token rules, `min_tokens`, penalties.

They are applied in this order, which is vLLM's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .request import Request
from .token_rules import FORCE, TokenRules

_FEW = 1 / 32  # of the vocabulary: adding something to each of more tokens takes longer than adding it to all
_SMALLEST_PENALTY = 1e-10  # more than enough, and logits divided by it are finite


def apply_rules(logits: Tensor, requests: Sequence[Request]) -> Tensor:
    """`logits` [len(requests), vocab] as the requests want them: a copy where any of them wants another one."""
    if not any(_changes(request) for request in requests):
        return logits
    logits = logits.clone()
    for row, request in zip(logits, requests, strict=True):
        if request.params.rules is not None:
            _apply_token_rules(row, request.params.rules, may_clash=request.params.grammar is not None)
        _ban(row, _banned_now(request))
        if request.params.penalizes:
            _penalize(row, request)
    return logits


def _changes(request: Request) -> bool:
    params = request.params
    return params.penalizes or params.rules is not None or request.generated < params.min_tokens


@dataclass(frozen=True, slots=True)
class _Tensors:
    """TokenRules as tensors on the sampler's device."""

    ids: Tensor | None  # None: all tokens
    bias: Tensor  # added to the logits of `ids`; -inf where they are banned


_TENSORS: WeakKeyDictionary[TokenRules, _Tensors] = WeakKeyDictionary()


def _tensors(rules: TokenRules, like: Tensor) -> _Tensors:
    """Made once for a request, for logits `like` [vocab]."""
    found = _TENSORS.get(rules)
    if found is None:
        found = _TENSORS[rules] = _make_tensors(rules, like)
    return found


def _make_tensors(rules: TokenRules, like: Tensor) -> _Tensors:
    only, banned = rules.only, rules.banned
    # What all that is left adds changes nothing: the others are gone, and a big number would only cost digits.
    bias = {token: value for token, value in rules.bias.items() if value < FORCE}
    ids = torch.tensor(list(bias), dtype=torch.int64, device=like.device)
    values = torch.tensor([-torch.inf if id in banned else value for id, value in bias.items()], device=like.device)
    if only is None and len(bias) <= _FEW * like.shape[-1]:
        return _Tensors(ids, values)
    whole = torch.zeros_like(like)
    whole[ids] = values
    if only is not None:
        kept = torch.tensor(sorted(only), dtype=torch.int64, device=like.device)
        whole = torch.full_like(like, -torch.inf).index_copy_(0, kept, whole[kept])
    return _Tensors(None, whole)


def _apply_token_rules(row: Tensor, rules: TokenRules, *, may_clash: bool) -> None:
    """In place; nothing is changed where a grammar leaves none of the tokens that the rules do."""
    tensors = _tensors(rules, row)
    before = row.clone() if may_clash else row
    if tensors.ids is None:
        row += tensors.bias
    else:
        row[tensors.ids] += tensors.bias
    if may_clash and row.max() == -torch.inf:
        row.copy_(before)


def _banned_now(request: Request) -> list[int]:
    """Tokens that must not be the next one because of those before it."""
    params = request.params
    banned: list[int] = []
    if request.generated < params.min_tokens:
        banned += params.stop_token_ids
    for word in params.rules.bad_words if params.rules is not None else ():
        begun = len(word) - 1
        if begun <= request.generated and request.tokens[len(request.tokens) - begun :] == list(word[:-1]):
            banned.append(word[-1])
    return banned


def _ban(row: Tensor, tokens: Sequence[int]) -> None:
    """In place; nothing is banned if no token would be left, as where only an end token may follow."""
    if not tokens:
        return
    ids = torch.tensor(tokens, dtype=torch.int64, device=row.device)
    before = row[ids]
    row[ids] = -torch.inf
    if row.max() == -torch.inf:
        row[ids] = before


def _penalize(row: Tensor, request: Request) -> None:
    """In place. Repetition (Keskar et al. 2019, section 4.1) counts the prompt too, the others are OpenAI's."""
    params = request.params
    if params.repetition_penalty != 1.0:
        seen = torch.unique(torch.tensor(request.tokens, device=row.device))
        values, penalty = row[seen], max(params.repetition_penalty, _SMALLEST_PENALTY)
        row[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if request.generated and (params.presence_penalty or params.frequency_penalty):
        output = torch.tensor(request.tokens[request.prompt_length :], device=row.device)
        seen, counts = torch.unique(output, return_counts=True)
        row[seen] -= params.presence_penalty + params.frequency_penalty * counts
