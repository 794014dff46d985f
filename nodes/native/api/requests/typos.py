"""Names of fields that are nearly right: what is misspelt would be ignored, and the answer not what was asked for."""

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 40
_SIMILAR = 0.92  # "temprature", "max_token"; below that come other names, such as OpenRouter's "models"


def meant(name: str, known: Iterable[str]) -> str | None:
    """The field of `known` that was probably meant by `name`; None if there is none."""
    if len(name) > _LONGEST:
        return None
    by_letters = {_letters(field): field for field in known}
    found = get_close_matches(_letters(name), by_letters, n=1, cutoff=_SIMILAR)
    return by_letters[found[0]] if found else None


def _letters(name: str) -> str:
    """A name without what other languages write differently: `maxTokens` and `max-tokens` are max_tokens."""
    return name.lower().replace("_", "").replace("-", "")
