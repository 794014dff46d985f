"""A GGUF file -> a model directory as Hugging Face lays it out."""

import json
from pathlib import Path
from typing import Any

from ..progress import Progress
from .config import generation_config, model_config
from .reader import GgufFile
from .tokenizer import build_tokenizer, tokenizer_config
from .weights import Float16OverflowError, kept_types, weights_dtype, write_weights


def convert(source: Path, directory: Path, progress: Progress, keep_quantized: bool = False) -> None:
    """Write the model in `source` into the existing `directory`.

    With `keep_quantized`, linear layers stay in the file's own blocks where `kept_types` says so: the format of
    checkpoint/gguf_blocks.py.

    Raises ModelNotFoundError, CorruptModelError, UnsupportedModelError, and OSError where it cannot be written.
    """
    progress("read", 0, 0)
    file = GgufFile(source)
    config = model_config(file, weights_dtype(file))
    if keep_quantized:
        config["quantization_config"] = {"quant_method": "gguf", **kept_types(file, config["num_hidden_layers"])}
    (directory / "tokenizer.json").write_text(build_tokenizer(file).to_str(pretty=True), encoding="utf-8")
    _write_json(directory / "tokenizer_config.json", tokenizer_config(file))
    _write_json(directory / "generation_config.json", generation_config(file))
    try:
        write_weights(file, config, directory, progress)
    except Float16OverflowError:
        config["torch_dtype"] = "bfloat16"
        write_weights(file, config, directory, progress)
    _write_json(directory / "config.json", config)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    content = {key: item for key, item in value.items() if item is not None}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
