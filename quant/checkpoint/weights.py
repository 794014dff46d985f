"""The tensors of a model directory: `model.safetensors`, or shards named by `model.safetensors.index.json`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from ...core.errors import CorruptModelError, ModelNotFoundError
from .files import INDEX, weight_files
from .formats import make_format
from .quantization import Scheme
from .quantized import GroupQuantized

_BASE = "model."  # what the names of all tensors but lm_head begin with, unless a bare decoder was saved
_FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


class Reads(Protocol):
    """The weights that a decoder is made of: those of a model directory, or one rank's part of them."""

    dtype: torch.dtype

    def read(self, name: str, *shape: int) -> torch.Tensor:
        """Tensor `name` on the CPU, in `dtype`; it must have `shape`. Raises CorruptModelError."""

    def linear(self, prefix: str, outputs: int, inputs: int) -> torch.Tensor | GroupQuantized:
        """The weight [outputs, inputs] of the linear layer `prefix`. Raises CorruptModelError."""

    def tied_head(self, embedding: torch.Tensor) -> torch.Tensor:
        """The weight of lm_head, where the model ties it to its embedding [vocab_size, hidden_size]."""


class Weights:
    """Reads tensors by name, each cast to one dtype.

    A file is mapped only while one of its tensors is read: mapped pages count as memory of the process.
    """

    def __init__(self, model: Path, dtype: torch.dtype, scheme: Scheme | None = None) -> None:
        """`scheme` says how linear layers are quantized, if they are. Raises ModelNotFoundError, CorruptModelError."""
        self.dtype, self._format = dtype, None if scheme is None else make_format(scheme)
        self._files = _locate(model)
        self._is_bare = not any(name.startswith(_BASE) for name in self._files)
        self._model = model

    def __contains__(self, name: str) -> bool:
        return self._stored(name) in self._files

    def read(self, name: str, *shape: int) -> torch.Tensor:
        """A copy of tensor `name`, which must have `shape`, on the CPU. Raises CorruptModelError.

        Integers and 8-bit floats are refused: without their scales they are no weights.
        """
        return self._copy(name, shape, _FLOATS, self.dtype)

    def linear(self, prefix: str, outputs: int, inputs: int) -> torch.Tensor | GroupQuantized:
        """The weight [outputs, inputs] of the linear layer `prefix`, dense or as its format has it."""
        if self._format is None or not self._format.holds(self, prefix):
            return self.read(f"{prefix}.weight", outputs, inputs)
        weight = self._format.read(self, prefix, outputs, inputs)
        return weight if isinstance(weight, GroupQuantized) else weight.to(self.dtype)

    def tied_head(self, embedding: torch.Tensor) -> torch.Tensor:
        """The weight of lm_head, where the model ties it to its embedding: all of it."""
        return embedding

    def stored(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A copy of tensor `name` on the CPU, in the file's dtype, which must be `dtype` if one is given.

        Raises CorruptModelError where the tensor is missing or has another shape or dtype.
        """
        return self._copy(name, shape, () if dtype is None else (dtype,), None)

    def rows(self, name: str, ids: torch.Tensor, *shape: int) -> torch.Tensor:
        """Rows `ids` of tensor `name`, without reading the others: a whole embedding may outweigh a layer."""
        with self._open(name) as file:
            self._check_shape(file, name, shape)
            tensor: torch.Tensor = file.get_tensor(self._stored(name))
            return tensor.index_select(0, ids).to(self.dtype)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of tensor `name`. Raises CorruptModelError."""
        with self._open(name) as file:
            return tuple(file.get_slice(self._stored(name)).get_shape())

    def _copy(
        self, name: str, shape: tuple[int, ...], valid: Sequence[torch.dtype], dtype: torch.dtype | None
    ) -> torch.Tensor:
        with self._open(name) as file:
            path = self._files[self._stored(name)]
            self._check_shape(file, name, shape)
            tensor: torch.Tensor = file.get_tensor(self._stored(name))
            if valid and tensor.dtype not in valid:
                kind, expected = _dtype_names(tensor.dtype), _dtype_names(*valid)
                raise CorruptModelError(f"{path}: tensor {name} is {kind}, expected {expected}")
            return tensor.to(dtype or tensor.dtype, copy=True)

    def _check_shape(self, file: Any, name: str, shape: tuple[int, ...]) -> None:
        found = tuple(file.get_slice(self._stored(name)).get_shape())
        if found != shape:
            path = self._files[self._stored(name)]
            raise CorruptModelError(f"{path}: tensor {name} has shape {found}, config.json says {shape}")

    def _stored(self, name: str) -> str:
        """The tensor's name in the files."""
        return name.removeprefix(_BASE) if self._is_bare else name

    @contextmanager
    def _open(self, name: str) -> Iterator[Any]:
        """The file of tensor `name`, open."""
        path = self._files.get(self._stored(name))
        if path is None:
            raise CorruptModelError(f"{self._model}: tensor {name} is missing")
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except (OSError, SafetensorError) as error:
            raise CorruptModelError(f"{path}: tensor {name}: {error}") from error


def _dtype_names(*dtypes: torch.dtype) -> str:
    return " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _locate(model: Path) -> dict[str, Path]:
    """Tensor name -> file. Opens every file once, so that a truncated one is found before computing starts."""
    if not model.is_dir():
        raise ModelNotFoundError(f"no model directory {model}")
    files: dict[str, Path] = {}
    for path in weight_files(model):
        files.update(dict.fromkeys(_names(path), path))
    return files


def _names(path: Path) -> list[str]:
    if not path.exists():
        raise CorruptModelError(f"{path} is missing; {INDEX} names it")
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise CorruptModelError(f"{path} is truncated or not a safetensors file: {error}") from error
