"""The sample of text that perplexities are measured on."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import UsageError
from ...quant.progress import Progress
from .variants import WINDOW

if TYPE_CHECKING:
    from ...nodes.native.tokenizer import Tokenizer

_MOST_CHARACTERS = 16  # of a token, on average


@dataclass(frozen=True)
class TextSample:
    """Tokens in windows, the same for both checkpoints."""

    tokens: tuple[int, ...]
    bos_id: int | None  # what each window begins with, where the model's tokenizer begins texts so
    window: int


def read_sample(original: Path, quantized: Path, text: str, windows: int, progress: Progress) -> TextSample:
    """The first tokens of the text, as many as the windows need. Raises UsageError, ModelError."""
    from ...nodes.native.tokenizer import Tokenizer
    from ...quant.checkpoint.config import read_config
    from ...quant.texts import read_text

    configs = [read_config(directory) for directory in (original, quantized)]
    window = min(WINDOW, *(config.context_length for config in configs))
    whole = read_text(text, progress)
    found = [_tokens(Tokenizer(directory), whole, windows * window) for directory in (original, quantized)]
    if found[0] != found[1]:
        raise UsageError(f"{quantized} has another tokenizer than {original}: their perplexities cannot be compared")
    tokens, bos_id = found[0]
    needed = windows * (window - (bos_id is not None))
    if len(tokens) < needed:
        raise UsageError(f"text {text}: {len(tokens)} tokens, but {windows} windows of {window} need {needed}")
    return TextSample(tokens[:needed], bos_id, window)


def _tokens(tokenizer: "Tokenizer", text: str, most: int) -> tuple[tuple[int, ...], int | None]:
    """At most `most` tokens of the text, and BOS if the tokenizer puts it before texts."""
    begin = tokenizer.encode("a", add_special_tokens=True)[:1]
    tokens = tokenizer.encode(text[: most * _MOST_CHARACTERS], add_special_tokens=False)
    return tuple(tokens[:most]), tokenizer.bos_id if begin == [tokenizer.bos_id] else None
