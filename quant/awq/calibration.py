"""The token sequences that a model is calibrated on."""

from pathlib import Path

import torch
from tokenizers import Tokenizer

from ...core.errors import CorruptModelError, ModelError
from ..progress import Progress
from ..texts import read_text


def calibration_tokens(model: Path, text: str, samples: int, length: int, progress: Progress) -> torch.Tensor:
    """int64 [samples, length]: the text's first tokens, cut into sequences.

    Raises ModelError where the text is too short, and what `read_text` raises.
    """
    ids = _tokenizer(model).encode(read_text(text, progress), add_special_tokens=False).ids
    if len(ids) < samples * length:
        raise ModelError(
            f"calibration text {text!r} has {len(ids)} tokens, too few for {samples} samples of {length}: "
            f"it gives {len(ids) // length} of that length; take a longer text, or fewer or shorter samples"
        )
    return torch.tensor(ids[: samples * length]).view(samples, length)


def _tokenizer(model: Path) -> Tokenizer:
    path = model / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CorruptModelError(f"cannot read {path}: {error}") from error
