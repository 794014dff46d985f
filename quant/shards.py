"""Writing a model's tensors as safetensors files, one tensor in memory at a time.

Format: https://github.com/huggingface/safetensors#format. The safetensors library writes only what is in memory as a
whole; a model of 40 GB is to be converted on a login node too.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from .progress import Progress

Dtype = str  # a key of _CODES
Load = Callable[[str], npt.NDArray[Any]]  # a tensor's values by its name, already in its dtype (bfloat16 as uint16)

SHARD_BYTES = 4 * 10**9
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int32": 4, "uint8": 1}
_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int32": "I32", "uint8": "U8"}
_ALIGNMENT = 8


@dataclass(frozen=True)
class TensorInfo:
    """What the header of a safetensors file says of a tensor."""

    dtype: Dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's values."""
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


def write_shards(
    directory: Path, tensors: Mapping[str, TensorInfo], load: Load, progress: Progress, limit: int = SHARD_BYTES
) -> None:
    """Write `tensors` into model.safetensors, or numbered files of at most `limit` bytes each and their index."""
    shards = plan_shards(tensors, limit)
    total = sum(info.nbytes for info in tensors.values())
    done = 0
    for file_name, names in shards.items():
        with (directory / file_name).open("wb") as file:
            file.write(_header({name: tensors[name] for name in names}))
            for name in names:
                file.write(load(name).data)
                done += tensors[name].nbytes
                progress("convert", done, total)
    if len(shards) > 1:
        weight_map = {name: file_name for file_name, names in shards.items() for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def plan_shards(tensors: Mapping[str, TensorInfo], limit: int) -> dict[str, list[str]]:
    """Tensor names by file name, in their order; a file has more than `limit` bytes only if one tensor has."""
    groups: list[list[str]] = [[]]
    size = 0
    for name, info in tensors.items():
        if groups[-1] and size + info.nbytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += info.nbytes
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    return {f"model-{i:05}-of-{len(groups):05}.safetensors": names for i, names in enumerate(groups, 1)}


def _header(tensors: Mapping[str, TensorInfo]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, info in tensors.items():
        end = offset + info.nbytes
        entries[name] = {"dtype": _CODES[info.dtype], "shape": list(info.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
