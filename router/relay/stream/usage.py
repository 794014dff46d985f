"""What an answer says of the tokens that it took."""

from typing import Any, NamedTuple

_MOST = 2**40  # tokens of one answer: what an engine says beyond that is nonsense, and no table of ours could hold it


class Tokens(NamedTuple):
    """Tokens of one answer, as its engine counts them."""

    prompt: int
    generated: int
    cached: int | None  # of the prompt; None where the engine does not say


def tokens_from(usage: Any) -> Tokens | None:
    """The tokens of a `usage` object of OpenAI's or Anthropic's APIs; None for anything else."""
    if not isinstance(usage, dict):
        return None
    get = usage.get
    prompt = get("prompt_tokens") or get("input_tokens")
    details = get("prompt_tokens_details") or get("input_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else get("cache_read_input_tokens")
    if not isinstance(details, dict) and "prompt_tokens" not in usage:
        # Anthropic's `input_tokens` leave out what was read from the cache, and what was put there.
        prompt = _count(prompt) + _count(cached) + _count(get("cache_creation_input_tokens"))
    return Tokens(
        _count(prompt),
        _count(get("completion_tokens") or get("output_tokens")),
        None if cached is None else _count(cached),
    )


def _count(value: Any) -> int:
    return value if type(value) is int and 0 < value < _MOST else 0
