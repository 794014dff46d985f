"""Model directories without weights."""

import json
from pathlib import Path
from typing import Any

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 4, "hidden_size": 64, "intermediate_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 8,
}  # fmt: skip


def write_directory(directory: Path, **changes: Any) -> Path:
    """Make a directory with what is looked at before its weights are read; `changes` are keys of config.json."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG | changes))
    (directory / "tokenizer.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"")
    return directory
