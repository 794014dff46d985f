"""A GGUF file, opened: typed metadata and tensors. Foreign errors end here.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from pathlib import Path
from typing import Any, TypeVar, cast, get_origin

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, ReaderTensor

from ...core.errors import CorruptModelError, ModelNotFoundError, UnsupportedModelError

Value = TypeVar("Value", str, int, float, bool, list[str], list[int], list[float])

_MAGIC = b"GGUF"


class GgufFile:
    """An open GGUF file. `tensors` are memory maps by GGUF name.

    Raises ModelNotFoundError, CorruptModelError and, for a piece of a split model, UnsupportedModelError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_magic(path)
        try:
            reader = _StrictReader(path)
        except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
            raise CorruptModelError(f"{path} is damaged or incomplete: {error}") from error
        self._fields = reader.fields
        self._values: dict[str, Any] = {}
        self.tensors: dict[str, ReaderTensor] = {tensor.name: tensor for tensor in reader.tensors}
        if self.find("split.count", int, 1) > 1:
            raise UnsupportedModelError(f"{path} is one piece of a split GGUF: merge it (llama-gguf-split --merge)")

    @property
    def architecture(self) -> str:
        """The model's architecture as GGUF names it, such as "llama". Raises CorruptModelError."""
        return self.get("general.architecture", str)

    def get(self, key: str, kind: type[Value]) -> Value:
        """The metadata value of `key`. Raises CorruptModelError where it is missing or of another type."""
        if key not in self._fields:
            raise CorruptModelError(f"{self.path} has no {key}")
        if key not in self._values:  # a vocabulary takes a second to decode
            self._values[key] = self._decode(key)
        value = self._values[key]
        if not isinstance(value, get_origin(kind) or kind):
            raise CorruptModelError(f"{self.path}: {key} = {value!r} is not of type {kind.__name__}")
        return cast(Value, value)

    def value(self, key: str) -> Any:
        """The metadata value of `key`, of whatever type. Raises KeyError where it is missing, CorruptModelError."""
        return self._decode(key)

    def find(self, key: str, kind: type[Value], default: Value) -> Value:
        """The metadata value of `key`, or `default` where it is missing. Raises CorruptModelError for another type."""
        return self.get(key, kind) if key in self._fields else default

    def keys_under(self, prefix: str) -> list[str]:
        """What follows `prefix` in all keys that begin with it."""
        return [key.removeprefix(prefix) for key in self._fields if key.startswith(prefix)]

    def has(self, key: str) -> bool:
        """Whether the metadata have `key`."""
        return key in self._fields

    def _decode(self, key: str) -> Any:
        try:
            return self._fields[key].contents()
        except (ValueError, IndexError) as error:
            raise CorruptModelError(f"{self.path}: {key} is damaged: {error}") from error


class _StrictReader(GGUFReader):
    """GGUFReader takes what lies beyond the end of the file for empty: it then fails obscurely, or loops."""

    def _get(self, offset: int, dtype: npt.DTypeLike, count: int = 1, override_order: Any = None) -> npt.NDArray[Any]:
        if isinstance(self.data, np.memmap):
            # Slices of a memmap take twice as long.
            self.data = self.data.view(np.ndarray)  # type: ignore[assignment]
        end = int(offset) + int(count) * np.dtype(dtype).itemsize
        if end > len(self.data):
            raise ValueError(f"it has {len(self.data)} bytes, at least {end} expected")
        array: npt.NDArray[Any] = super()._get(offset, dtype, count, override_order)
        return array


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"no such file: {path}") from error
    except OSError as error:
        raise ModelNotFoundError(f"cannot read {path}: {error.strerror}") from error
    if magic != _MAGIC:
        raise CorruptModelError(f"{path} is not a GGUF file: it begins with {magic!r}")
