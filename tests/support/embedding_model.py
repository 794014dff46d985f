"""Small random embedding models as sentence-transformers writes them, and what transformers computes of them."""

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import processors
from transformers import AutoModel

from .chat_model import write_tokenizer
from .random_models import SMALL, write_random_model

END = "<|end|>"


def write_embedding_model(
    path: Path, *, pooling: str | None = "lasttoken", normalize: bool = True, bare: bool = False, **files: Any
) -> Path:
    """A Qwen3 whose tokenizer adds an end token. `pooling` None: without sentence-transformers' files.

    `files`: JSON of further files, by their names without the suffix; `config` is added to config.json.
    """
    changes = {"vocab_size": 320, "num_hidden_layers": 2, "max_position_embeddings": 256, "head_dim": 16}
    decoder: Any = write_random_model(path, "qwen3", SMALL | changes)
    if bare:
        for file in path.iterdir():
            file.unlink()
        decoder.base_model.save_pretrained(path)
    write_tokenizer(path)
    tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    end = (END, tokenizer.token_to_id(END))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[end])
    tokenizer.save(str(path / "tokenizer.json"))
    if pooling is not None:
        _write_modules(path, pooling, normalize)
    _update(path / "config.json", files.pop("config", {}))
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def _write_modules(path: Path, pooling: str, normalize: bool) -> None:
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    keys = {"lasttoken": "pooling_mode_lasttoken", "cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}
    config = {"word_embedding_dimension": 64, **{key: mode == pooling for mode, key in keys.items()}}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(config))


def _update(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


@torch.inference_mode()
def expected(path: Path, ids: list[int], pooling: str = "lasttoken", *, normalize: bool = True) -> torch.Tensor:
    """The embedding of a text's tokens in float32, pooled from transformers' hidden states."""
    model = AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    states = model(torch.tensor([ids])).last_hidden_state[0]
    vector = {"lasttoken": states[-1], "cls": states[0], "mean": states.mean(0)}[pooling]
    return torch.nn.functional.normalize(vector, dim=0) if normalize else vector
