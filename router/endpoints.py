"""The paths that the endpoint has, and what a client is told that asks for another one."""

from difflib import get_close_matches

from ..core.net.openai_paths import canonical_path

# Those of POST requests for workers. They have figures of their own; clients can make up any number of others.
ENDPOINTS = frozenset(
    f"/v1/{path}"
    for path in (
        *("chat/completions", "completions", "embeddings", "messages", "messages/count_tokens", "moderations"),
        *("rerank", "responses", "responses/input_tokens", "score", "tokenize", "detokenize"),
        *("audio/speech", "audio/transcriptions", "audio/translations", "images/generations"),
    )
)
TOKENIZER_INFO = "/v1/tokenizer_info"  # for workers too, with GET
COUNTED = ENDPOINTS | {TOKENIZER_INFO}
# What a client may try in every deployment.
_SHOWN = (
    "/health", "/v1/batches", "/v1/chat/completions", "/v1/completions", "/v1/detokenize",
    "/v1/embeddings", "/v1/files", "/v1/messages", "/v1/messages/count_tokens", "/v1/models", "/v1/responses",
    "/v1/responses/input_tokens", "/v1/tokenize", TOKENIZER_INFO,
)  # fmt: skip
_MOST = 200  # characters of a path that are repeated
_SIMILAR = 0.8


def no_such_path(method: str, path: str) -> str:
    """Why a path is answered with 404: nobody has it, or it is one that only some engines have."""
    shown = path[:_MOST]
    if path in COUNTED:
        why = "the engine that serves this model does not have it"
    else:
        why = "no such path" + _hint(canonical_path(shown))
    return f"{method} {shown}: {why}; there are: {', '.join(each for each in _SHOWN if each != path)}; /docs says more"


def _hint(path: str) -> str:
    """Which path is meant: one that this one ends with, since the base URL has too much, or one that it resembles."""
    if ends := [each for each in _SHOWN if path.endswith(each.removeprefix("/v1"))]:
        return f"; {max(ends, key=len)} is probably meant: a client's base URL ends with /v1"
    near = get_close_matches(path, _SHOWN, n=1, cutoff=_SIMILAR)
    return f"; {near[0]} is probably meant" if near else ""
