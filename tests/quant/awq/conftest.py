"""Small random models with a tokenizer, to be quantized in a moment."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedModel

from slurminfer.quant.awq.options import AwqOptions

from ...support import random_models

SMALL = random_models.SMALL | {"vocab_size": 300, "num_hidden_layers": 4, "max_position_embeddings": 128}
SAMPLES, LENGTH = 8, 32


def make_model(path: Path, kind: str = "llama", save: dict[str, Any] | None = None, **changes: Any) -> PreTrainedModel:
    """Write a random model whose tokens are the words "0", "1", ...; returns it in float32."""
    model = random_models.write_random_model(path, kind, SMALL | changes, **(save or {}))
    tokenizer = Tokenizer(WordLevel({str(word): word for word in range(SMALL["vocab_size"])}, unk_token="0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(path / "tokenizer.json"))
    return model


@pytest.fixture
def make() -> Callable[..., PreTrainedModel]:
    return make_model


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Random words, as many as the options below take."""
    path = tmp_path / "text.txt"
    words = random.Random(0).choices(range(SMALL["vocab_size"]), k=SAMPLES * LENGTH)
    path.write_text(" ".join(map(str, words)))
    return path


@pytest.fixture
def options(text: Path) -> AwqOptions:
    return AwqOptions(group_size=32, calibration=str(text), samples=SAMPLES, sample_length=LENGTH, threads=1)


@pytest.fixture(autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
