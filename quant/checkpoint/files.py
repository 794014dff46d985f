"""Which files of a model directory hold its tensors, and what they hold; torch is not needed for it."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import CorruptModelError, ModelNotFoundError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_LONGEST_HEADER = 100_000_000  # bytes, as in the safetensors library


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model. Raises CorruptModelError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptModelError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise CorruptModelError(f"{path}: expected a JSON object")
    return value


def weight_files(model: Path) -> list[Path]:
    """The files that hold the tensors of a model: `model.safetensors`, else the shards that the index names.

    An index beside `model.safetensors` is what saving in shards has left before; transformers passes over it as well.
    Raises ModelNotFoundError where there is neither, CorruptModelError.
    """
    if (model / SINGLE).exists():
        return [model / SINGLE]
    if not (model / INDEX).exists():
        raise ModelNotFoundError(f"{model} has neither {SINGLE} nor {INDEX}")
    shards = set(_weight_map(model).values())
    outside = [shard for shard in shards if Path(shard).name != shard]
    if outside:
        raise CorruptModelError(f"{model / INDEX} names {outside[0]!r}, which is outside of {model}")
    return [model / shard for shard in sorted(shards)]


def stored_bytes(model: Path) -> int:
    """Bytes that the tensors of a model directory take on the disk; 0 where there are none."""
    try:
        return sum(path.stat().st_size for path in weight_files(model) if path.exists())
    except ModelNotFoundError:
        return sum(path.stat().st_size for path in model.glob("*.safetensors"))


def stores_tensor(model: Path, name: str) -> bool:
    """Whether a model directory has the tensor `name`; False where it has no tensors. Raises CorruptModelError."""
    if (model / SINGLE).exists():
        return name in _header(model / SINGLE)
    return (model / INDEX).exists() and name in _weight_map(model)


def _weight_map(model: Path) -> Mapping[str, str]:
    found = read_json_object(model / INDEX).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(shard, str) for shard in found.values()):
        raise CorruptModelError(f"cannot read {model / INDEX}: expected a weight_map of file names")
    return found


def _header(path: Path) -> Mapping[str, Any]:
    """What a safetensors file begins with: an object by the tensors' names."""
    try:
        with path.open("rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            found = json.loads(file.read(size)) if size <= _LONGEST_HEADER else None
    except (OSError, ValueError, struct.error, RecursionError) as error:
        raise CorruptModelError(f"{path} is truncated or not a safetensors file: {error}") from error
    if not isinstance(found, dict):
        raise CorruptModelError(f"{path} is truncated or not a safetensors file: it has no header")
    return found
