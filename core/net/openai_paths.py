"""The paths of OpenAI's API as clients get them wrong: with slashes too many, without /v1, or with it twice."""

import re

_BASE = re.compile(r"/+(?:v1(?:/+|$))*")
_SLASHES = re.compile(r"/+")
# The first parts of the paths below /v1. No path of ours at the root begins with one of them.
_BELOW_V1 = frozenset(
    {"audio", "batches", "chat", "completions", "embeddings", "files", "images", "messages", "models", "moderations"}
    | {"detokenize", "rerank", "responses", "score", "tokenize", "tokenizer_info"}
)


def canonical_path(path: str) -> str:
    """The path that is meant by `path`, which may still be percent-encoded; `path` itself where that is not known.

    /v1/chat/completions/, //v1/chat/completions, /v1/v1/chat/completions and /chat/completions are all
    /v1/chat/completions. The name of a model behind /v1/models/ is kept as it is: it may be a path on a disk.
    """
    base = _BASE.match(path)
    if base is None:
        return path
    rest = path[base.end() :]
    first, _, below = rest.partition("/")
    root = "/v1/" if "v1" in base[0] or first in _BELOW_V1 else "/"
    if first == "models" and below.strip("/"):
        return root + rest
    return (root + _SLASHES.sub("/", rest)).rstrip("/") or "/"
