"""Keeps packed weights in `$SLURMINFER_HOME/packed`: reading them takes a fraction of the time of packing.

One file for each model and each of its versions. It is read into memory, not mapped: on a shared filesystem a file that
someone removes would take a mapped engine down, and memory lies near the CPUs that read it first.
"""

import hashlib
import os
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from .....core.errors import UntrustedFileError
from .....core.trust import make_private_folder, open_trusted
from .....quant.checkpoint.config import ModelConfig
from .....quant.checkpoint.files import weight_files
from . import cache
from .pack import Packed
from .parts import LayerParts, Parts

_VERSION = 3  # of the layout: another one makes files of before useless
_THREAD, _NICE = "packed weights", 19
_LEFTOVER_S = 3600.0  # old enough for a temporary file to be one that nobody writes any more


def place_of(model: Path, dtype: torch.dtype, part: str = "") -> Path:
    """Where packed weights of a model directory, or of a `part`, lie or would lie: a name that changes with them."""
    digest = hashlib.sha256(f"{_VERSION} {dtype} {part}".encode())
    digest.update((model / "config.json").read_bytes())
    for path in weight_files(model):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return cache.place("packed", f"{model.resolve().name}-{digest.hexdigest()[:16]}.pt")


def read(path: Path, config: ModelConfig) -> Parts | None:
    """Read packed weights. None if there are none, or if they are damaged (they have checksums) or not trusted.

    Why they are refused is printed to stderr.
    """
    try:
        with open_trusted(path) as file:
            return _read(file, config)
    except FileNotFoundError:
        return None
    except UntrustedFileError as error:
        print(f"packed weights are not loaded, and made anew: {error}", file=sys.stderr, flush=True)
    except Exception as error:  # whatever a damaged file does to unpickling: the checkpoint has it all
        print(f"{path} is damaged, weights are packed anew: {error!r}", file=sys.stderr, flush=True)
    return None


def _read(file: BinaryIO, config: ModelConfig) -> Parts:
    """Raises whatever a damaged file makes torch.load raise, and ValueError."""
    with zipfile.ZipFile(file) as archive:  # what torch.save writes; torch.load does not look at its checksums
        if archive.testzip() is not None:
            raise ValueError("a checksum is wrong")
    found = torch.load(f"/proc/self/fd/{file.fileno()}", weights_only=True)  # by a path it reads without Python
    layers = [_layer(layer) for layer in found["layers"]]
    if len(layers) != config.num_layers:
        raise ValueError(f"{len(layers)} layers, config.json says {config.num_layers}")
    head = found["head"]
    return Parts(layers, found["norm"], None if head is None else Packed(**head), found["embedding"])


def write_later(path: Path, parts: Parts) -> threading.Thread:
    """Start a thread that writes the weights to `path`; it gives up when the process ends.

    Errors such as a full disk are printed to stderr and not raised.
    """
    thread = threading.Thread(target=_write, args=(path, parts), name=_THREAD)
    thread.start()
    return thread


def finish_writing() -> None:
    """Wait for what `write_later` has begun: whoever measures wants the CPUs for itself."""
    for thread in threading.enumerate():
        if thread.name == _THREAD:
            thread.join()


def _write(path: Path, parts: Parts) -> None:
    with suppress(OSError):  # the first requests are computed meanwhile
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
    content = {
        "layers": [_fields(layer) for layer in parts.layers],
        "norm": parts.norm,
        "head": None if parts.head is None else _fields(parts.head),
        "embedding": parts.embedding,
    }
    beside: str | None = None
    try:
        make_private_folder(path.parent)
        _sweep(path)
        descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # of mode 0600
        with os.fdopen(descriptor, "wb") as file:
            torch.save(content, cast("IO[bytes]", _WhileRunning(file)))
            file.flush()
            os.fsync(file.fileno())
        cache.put(Path(beside), path)
    except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of some of a disk's errors
        if threading.main_thread().is_alive():
            print(f"packed weights are not kept, the next start takes as long: {error}", file=sys.stderr, flush=True)
        if beside is not None:
            with suppress(OSError):
                Path(beside).unlink(missing_ok=True)


class _WhileRunning:
    """Writes to a file until the main thread has ended: Python waits for the others, and must not wait for a disk."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        if not threading.main_thread().is_alive():
            raise OSError("the process ends")
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _sweep(path: Path) -> None:
    """Remove what killed processes have left."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_S:
                leftover.unlink()


def _fields(part: LayerParts | Packed) -> dict[str, Any]:
    """As plain values: what `torch.load` accepts from a file that anyone may have written."""
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    return {name: _fields(value) if isinstance(value, Packed) else value for name, value in values.items()}


def _layer(values: Mapping[str, Any]) -> LayerParts:
    parts: dict[str, Any] = {
        name: Packed(**value) if isinstance(value, dict) else value for name, value in values.items()
    }
    return LayerParts(**parts)
