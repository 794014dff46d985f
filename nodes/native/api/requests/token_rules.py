"""What a request says of single tokens, checked against the model's vocabulary."""

from collections.abc import Collection

from ...engine.token_rules import BAN, FORCE, TokenRules
from ...tokenizer import Tokenizer
from ..errors import ApiError, short
from .generation import MAX_RULED_TOKENS, GenerationRequest
from .protocol import require_known


def token_rules(
    body: GenerationRequest, vocab_size: int, tokenizer: Tokenizer, end_ids: Collection[int]
) -> TokenRules | None:
    """The rules of a request; None if it has none. Raises ApiError for ids that are no tokens, and for contradictions.

    `end_ids`: which end an answer, those of the request itself included.
    """
    bias = _bias(body, vocab_size)
    allowed = None if body.allowed_token_ids is None else frozenset(body.allowed_token_ids)
    if allowed is not None:
        require_known("allowed_token_ids", allowed, vocab_size)
    words = _bad_words(body.bad_words or (), tokenizer)
    if not bias and allowed is None and not words:
        return None
    rules = TokenRules(bias, allowed, words)
    _require_any(body, rules, vocab_size, end_ids)
    return rules


def _bias(body: GenerationRequest, vocab_size: int) -> dict[int, float]:
    found: dict[int, float] = {}
    given = body.logit_bias or {}
    if len(given) > MAX_RULED_TOKENS:
        message = f"logit_bias has {len(given)} entries: expected at most {MAX_RULED_TOKENS}"
        raise ApiError(400, message, param="logit_bias")
    for key, value in given.items():
        param = f"logit_bias.{key[:80]}"
        if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) < vocab_size):
            expected = f"expected token ids from 0 to {vocab_size - 1}, as strings"
            raise ApiError(400, f"logit_bias: {short(key)}: {expected}", param="logit_bias")
        if not BAN <= value <= FORCE:
            raise ApiError(400, f"{param} = {short(value)}: expected -100 to 100", param=param)
        found[int(key)] = value
    return found


def _bad_words(words: Collection[str], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """The tokens of each word at the beginning of a text and behind a space, which may be others."""
    forms = [form for word in words for form in (word, " " + word.lstrip())]
    found = (tuple(tokenizer.encode(form, add_special_tokens=False)) for form in forms)
    return tuple(dict.fromkeys(ids for ids in found if ids))


def _require_any(body: GenerationRequest, rules: TokenRules, vocab_size: int, end_ids: Collection[int]) -> None:
    """Raise ApiError where no token could ever come, or none but end tokens before `min_tokens`."""
    left, banned = rules.only, rules.banned
    if left is None and len(banned) + len(end_ids) < vocab_size:
        return
    left = frozenset(range(vocab_size)) - banned if left is None else left
    name = "logit_bias" if body.allowed_token_ids is None else "allowed_token_ids"
    if not left:
        raise ApiError(400, f"{name}: no token is left that may come; expected at least one", param=name)
    if body.fewest_tokens and left <= frozenset(end_ids):
        message = f"{name}: only tokens that end the answer are left, but min_tokens = {body.fewest_tokens}"
        raise ApiError(400, message, param=name)
