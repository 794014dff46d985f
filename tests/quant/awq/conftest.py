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
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from slurminfer.quant.awq.options import AwqOptions

SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
SAMPLES, LENGTH = 8, 32


def make_model(path: Path, kind: str = "llama", save: dict[str, Any] | None = None, **changes: Any) -> PreTrainedModel:
    """Write a random model whose tokens are the words "0", "1", ...; returns it in float32."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(SMALL | changes))).eval().float()
    for name, parameter in model.named_parameters():
        if name.endswith((".bias", "norm.weight")):
            torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    model.save_pretrained(path, **(save or {}))
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
