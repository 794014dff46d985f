"""The log-probabilities of a prompt as vLLM's `prompt_logprobs` has them."""

from typing import Any

import msgspec

from ...engine.request import Request
from ...tokenizer import Tokenizer
from .formats import finite


def prompt_logprobs_json(tokenizer: Tokenizer, request: Request, top: int) -> msgspec.Raw:
    """For each token of a computed prompt, by id: itself and the `top` most likely ones; null for the first token.

    Each token is encoded by itself: a list of all would take ten times the memory, and hold up the engine's thread
    while it is encoded.
    """
    found, prompt = request.prompt_logprobs, request.tokens[: request.prompt_length]
    assert found is not None, "see GenerationRequest.sampling"
    told = [b"null"]
    for token, (chosen, rank, best) in zip(prompt[1:], found, strict=True):
        entries = {str(token): _entry(tokenizer, token, chosen, rank)}
        for place, (id, value) in enumerate(best[:top]):
            entries.setdefault(str(id), _entry(tokenizer, id, value, place + 1))
        told.append(msgspec.json.encode(entries))
    return msgspec.Raw(b"[" + b",".join(told) + b"]")


def _entry(tokenizer: Tokenizer, id: int, logprob: float, rank: int) -> dict[str, Any]:
    text = tokenizer.token_bytes(id).decode(errors="replace")
    return {"logprob": finite(logprob), "rank": rank, "decoded_token": text}
