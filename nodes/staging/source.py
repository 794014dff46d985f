"""What of a model is staged: its files, and the key by which copies of it are known."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import StagingError

_MOST_FILES = 20_000
_VERSION = 1  # of the layout of copies: another one makes those of before useless
# Hubs offer the same weights in several formats. Beside this one, no engine here reads the others.
_USUAL_WEIGHTS = ".safetensors"
_OTHER_WEIGHTS = frozenset({
    ".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".nemo", ".onnx", ".onnx_data", ".ot", ".pt", ".pth", ".tflite",
})  # fmt: skip


@dataclass(frozen=True)
class SourceFile:
    """A file of a model as it was when it was looked at; links are followed."""

    name: str  # relative to the model's directory; empty where the model is this file
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Source:
    """A model directory, or a model that is one file."""

    path: Path  # without links
    files: tuple[SourceFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def inner(self) -> Path:
        """The path of the model below the folder of a copy."""
        return self.path.relative_to(self.path.anchor)

    @property
    def key(self) -> str:
        """Of its own for each model and each state of it."""
        said = [_VERSION, str(self.path), [[file.name, file.size, file.mtime_ns] for file in self.files]]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def source_of(path: Path) -> Source:
    """What is to be copied of the model at `path`. Raises StagingError where it cannot be read."""
    try:
        real = path.resolve(strict=True)
        names = [""] if real.is_file() else _needed(sorted(_files(real)))
        files = tuple(_look(real / name, name) for name in names)
    except OSError as error:
        raise StagingError(f"cannot read {error.filename or path}: {error.strerror}") from error
    except RuntimeError as error:  # what pathlib raises for a link that leads to itself
        raise StagingError(f"cannot read {path}: {error}") from error
    return Source(real, files)


def _files(root: Path) -> list[str]:
    found = list(itertools.islice(_walk(root, "", frozenset()), _MOST_FILES + 1))
    if len(found) > _MOST_FILES:
        raise StagingError(f"{root} has more than {_MOST_FILES} files, if its links are followed")
    return found


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Names of regular files in `folder` and below, through links too; not what is hidden, such as .git."""
    status = folder.stat()
    own = status.st_dev, status.st_ino
    if own in above:  # a link leads back up
        return
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in visible:
        if entry.is_dir():
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", above | {own})
        elif entry.is_file() or not os.path.exists(entry.path):
            yield prefix + entry.name


def _needed(names: Sequence[str]) -> list[str]:
    """Without weights in other formats, where the model has some in the usual one."""
    has_usual = any(name.endswith(_USUAL_WEIGHTS) and "/" not in name for name in names)
    return [name for name in names if not (has_usual and Path(name).suffix.lower() in _OTHER_WEIGHTS)]


def _look(path: Path, name: str) -> SourceFile:
    """Raises OSError for a link that leads nowhere: the model is incomplete. StagingError for a name in no UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise StagingError(f"{os.fsencode(path)!r} is no UTF-8, expected names that are") from error
    status = path.stat()
    return SourceFile(name, status.st_size, status.st_mtime_ns)
