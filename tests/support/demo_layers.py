"""The first layers of the demo model: real weights and a real tokenizer at a part of the cost."""

import json
import re
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file


def write_first_layers(demo: Path, directory: Path, layers: int) -> None:
    """Write a model of so many layers to `directory`, which others may read."""
    directory.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(demo / name, directory)
    config = json.loads((demo / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}), encoding="utf-8")
    tensors = load_file(demo / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if _layer_of(name) < layers}
    save_file(kept, directory / "model.safetensors")
    for path in directory.iterdir():
        path.chmod(0o644)


def _layer_of(tensor: str) -> int:
    found = re.match(r"model\.layers\.(\d+)\.", tensor)
    return int(found[1]) if found else 0
