"""What path a request means, whatever slashes and base URL its client has been given."""

import re
from functools import lru_cache
from urllib.parse import unquote

from ...core.net.openai_paths import canonical_path

_GENERATION = re.compile(r"/v1/(?!(?:models|files|batches)(?:/|$)|responses/resp_)[\w/-]+", re.ASCII)


@lru_cache(maxsize=64)
def canonical_target(target: bytes) -> tuple[bytes, str]:
    """The target that is meant by one in origin form, and its path, decoded.

    Engines know their paths by their exact bytes, so those that are for them lose needless percent-encoding, too.
    """
    raw, question, query = target.partition(b"?")
    encoded = canonical_path(raw.decode("latin-1"))
    path = unquote(encoded, errors="replace") if "%" in encoded else encoded
    if path != encoded and is_generation_path(path):
        encoded = path
    return encoded.encode("latin-1") + question + query, path


@lru_cache(maxsize=64)
def is_generation_path(path: str) -> bool:
    """Whether a path is one of those that workers answer: they alone know which there are below /v1."""
    return _GENERATION.fullmatch(path) is not None
