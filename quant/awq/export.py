"""Finished layers -> a checkpoint directory that others read: safetensors, config.json, the tokenizer's files."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from ...core.errors import ModelError
from ..checkpoint.awq import PER_WORD
from ..checkpoint.files import read_json_object
from ..checkpoint.tensors import (
    EMBEDDING,
    FINAL_NORM,
    HEAD,
    LINEARS,
    layer_prefix,
    linear_shape,
    tensor_shapes,
)
from ..checkpoint.weights import Weights
from ..progress import Progress
from ..shards import TensorInfo, write_shards
from .calibrate import Calibration
from .rounding import BITS
from .workspace import Workspace, commit

REPORT = "quantization.json"
_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt", ".gguf")
_DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16"}


def export(calibration: Calibration, workspace: Workspace, description: dict[str, Any], progress: Progress) -> None:
    """Write the checkpoint, give it its name, and remove the workspace."""
    final = workspace.final
    shutil.rmtree(final, ignore_errors=True)
    final.mkdir()
    copy_other_files(calibration.model, final)
    _write_tensors(calibration, workspace, description["group_size"], progress)
    _write_config(calibration, final, description["group_size"])
    layers = [workspace.layer_report(index) for index in range(calibration.config.num_layers)]
    report = description | {"seconds": round(sum(layer["seconds"] for layer in layers), 3), "layers": layers}
    (final / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    commit(final, workspace.out)
    workspace.remove()


def copy_other_files(model: Path, directory: Path) -> None:
    """Tokenizer, chat template, generation settings, licence: whatever is neither weights nor config.json.

    Of an embedding model, its pooling too, which lies in a folder of its own.
    """
    for path in model.iterdir():
        is_weights = path.suffix in _WEIGHTS or path.name.endswith(".index.json")
        if path.is_file() and not is_weights and path.name not in ("config.json", REPORT):
            shutil.copyfile(path, directory / path.name)
    for path in model.glob("*/config.json") if (model / "modules.json").exists() else ():
        (directory / path.parent.name).mkdir(exist_ok=True)
        shutil.copyfile(path, directory / path.parent.name / path.name)


def checkpoint_dtype(calibration: Calibration) -> torch.dtype:
    """The dtype of the tensors that are not quantized: bfloat16 if the model is in it, else float16."""
    norm = calibration.weights.stored(f"{FINAL_NORM}.weight", calibration.config.hidden_size)
    return torch.bfloat16 if norm.dtype == torch.bfloat16 else torch.float16


def output_bytes(calibration: Calibration) -> int:
    """About the checkpoint's size in bytes."""
    config = calibration.config
    linears = sum(outputs * inputs for outputs, inputs in (linear_shape(config, name) for name in LINEARS))
    tables = 2 * config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    return config.num_layers * linears * 5 // 8 + tables


def _write_tensors(calibration: Calibration, workspace: Workspace, group_size: int, progress: Progress) -> None:
    dtype, config = checkpoint_dtype(calibration), calibration.config
    weights = Weights(calibration.model, dtype)
    table = (config.vocab_size, config.hidden_size)
    has_own_head = config.has_head and not config.tie_word_embeddings
    outer = {f"{FINAL_NORM}.weight": table[1:]} | ({f"{HEAD}.weight": table} if has_own_head else {})
    shapes: dict[str, tuple[int, ...]] = {f"{EMBEDDING}.weight": table, **outer}

    def load(name: str) -> npt.NDArray[Any]:
        if name in shapes:
            return _array(_checked(weights.read(name, *shapes[name]), name))
        _, _, index, rest = name.split(".", 3)
        return _array(_checked(workspace.load_layer(int(index), rest), name))

    infos = {name: TensorInfo(_DTYPES[dtype], shape) for name, shape in shapes.items()}
    layer = _layer_infos(calibration, group_size)
    for index in range(config.num_layers):
        infos |= {f"{layer_prefix(index)}{name}": info for name, info in layer.items()}
    write_shards(workspace.final, infos, load, lambda stage, done, total: progress("write", done, total))


def _layer_infos(calibration: Calibration, group_size: int) -> dict[str, TensorInfo]:
    dtype, infos = _DTYPES[checkpoint_dtype(calibration)], {}
    for name, shape in tensor_shapes(calibration.config).items():
        linear = name.removesuffix(".weight")
        if linear not in LINEARS:
            infos[name] = TensorInfo(dtype, shape)
            continue
        outputs, inputs = shape
        infos[f"{linear}.qweight"] = TensorInfo("int32", (inputs, outputs // PER_WORD))
        infos[f"{linear}.qzeros"] = TensorInfo("int32", (inputs // group_size, outputs // PER_WORD))
        infos[f"{linear}.scales"] = TensorInfo("float16", (inputs // group_size, outputs))
    return infos


def _checked(tensor: torch.Tensor, name: str) -> torch.Tensor:
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise ModelError(f"{name} has values that {tensor.dtype} cannot hold: store the model in bfloat16 first")
    return tensor


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _write_config(calibration: Calibration, directory: Path, group_size: int) -> None:
    config = read_json_object(calibration.model / "config.json")
    config.pop("dtype", None)
    config["tie_word_embeddings"] = calibration.config.tie_word_embeddings  # not where a head of its own is stored
    config["torch_dtype"] = _DTYPES[checkpoint_dtype(calibration)]
    config["quantization_config"] = {
        "quant_method": "awq",
        "bits": BITS,
        "group_size": group_size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": [HEAD],
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
