"""The bodies of POST /tokenize and /detokenize, which are vLLM's."""

from typing import Any

import msgspec

from ..errors import ApiError
from .body import decode
from .chat import ChatRequest
from .protocol import convert, parse_raw, require_known


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A text to tokenize. As in OpenAI's API, null is the same as absent; without `model` it is the one served."""

    prompt: str
    model: str | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens to write as text."""

    tokens: list[int]
    model: str | None = None

    def check(self, vocab_size: int, most: int) -> None:
        """Raise ApiError for ids that are no tokens, and for more of them than `most`."""
        if len(self.tokens) > most:
            raise ApiError(400, f"tokens has {len(self.tokens)} ids: expected at most {most}", param="tokens")
        require_known("tokens", self.tokens, vocab_size)


def parse_tokenize(body: bytes, model: str) -> tuple[TokenizeRequest | ChatRequest, bool]:
    """A text or a chat to tokenize, for `model` where it names none, and whether tokens are wanted as strings, too.

    Raises ApiError.
    """
    raw = decode(body)
    if raw.get("messages") is None:
        request = convert(raw, TokenizeRequest)
        return request, bool(request.return_token_strs)
    if raw.get("prompt") is not None:
        raise ApiError(400, "prompt and messages exclude each other: expected one of them", param="prompt")
    wants_strings = convert({"prompt": "", "return_token_strs": raw.pop("return_token_strs", None)}, TokenizeRequest)
    return parse_raw(ChatRequest, {**raw, "model": raw.get("model") or model}), bool(wants_strings.return_token_strs)


def parse_detokenize(body: bytes) -> DetokenizeRequest:
    """Raises ApiError."""
    raw: dict[str, Any] = decode(body)
    return convert(raw, DetokenizeRequest)
