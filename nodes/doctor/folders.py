"""Where files land: home, caches and scratch, on which filesystem, how much room there is, and how fast scratch is."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...core import paths
from ...core.site.machine import Folder
from .mounts import mount_of
from .quota import quota_of

# Variables that name a cache, and where it is without them, below the home directory.
_CACHES = {
    "HF_HOME": ".cache/huggingface",
    "TORCH_HOME": ".cache/torch",
    "TRITON_CACHE_DIR": ".triton",
    "XDG_CACHE_HOME": ".cache",
}
SCRATCH = ("TMPDIR", "SLURM_TMPDIR", "LOCAL_SCRATCH", "SCRATCH", "WORK")  # what sites set
TEMPORARY = "temporary files"
_CHUNK = bytes(4 << 20)
_MOST_BYTES = 32 << 20
_LONGEST_S = 2.0
_ROOM = 1 << 30  # without it nothing is written to see how fast it is


def folders(environ: Mapping[str, str], measure: bool = True) -> tuple[Folder, ...]:
    """What this user's programs write into, each path once, with everything that uses it."""
    uses: dict[str, list[str]] = {}
    scratch = set()
    for purpose, path, is_scratch in _wanted(environ):
        uses.setdefault(path, []).append(purpose)
        scratch |= {path} if is_scratch else set()
    return tuple(
        folder(path, ", ".join(purposes), measure=measure and path in scratch) for path, purposes in uses.items()
    )


def folder(path: str, purpose: str, *, measure: bool) -> Folder:
    """One of them; of one that does not exist yet, what the nearest folder above says."""
    there = _nearest(Path(path))
    mount = mount_of(there)
    size, free = _room(there)
    is_writable = os.access(there, os.W_OK | os.X_OK)
    quota, used = quota_of(there, mount)
    return Folder(
        purpose=purpose,
        path=path,
        is_writable=is_writable,
        filesystem=mount.kind,
        is_shared=mount.is_shared,
        is_memory=mount.is_memory,
        may_execute=mount.may_execute,
        size=size,
        free=free,
        quota=quota,
        quota_used=used,
        write_bytes_per_s=_speed(there) if measure and is_writable and (free or 0) > _ROOM else None,
    )


def _wanted(environ: Mapping[str, str]) -> Iterator[tuple[str, str, bool]]:
    """(what uses it, the path, whether it is scratch)."""
    home = Path.home()
    yield "home", str(home), False
    yield "SLURMINFER_HOME", str(paths.home()), False
    for name, default in _CACHES.items():
        yield name, environ.get(name) or str(home / default), False
    for name in SCRATCH:
        if environ.get(name):
            yield name, environ[name], True
    yield TEMPORARY, tempfile.gettempdir(), True
    if Path("/dev/shm").is_dir():
        yield "shared memory", "/dev/shm", False


def _nearest(path: Path) -> Path:
    """The path itself, or the first above it that exists."""
    return next((one for one in (path, *path.parents) if one.is_dir()), Path("/"))


def _room(path: Path) -> tuple[int | None, int | None]:
    """Bytes of the filesystem, and those that this user may still write."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None, None
    return found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail


def _speed(path: Path) -> float | None:
    """Bytes written in a second to a file that is on the medium, by at most 32 MiB."""
    written, took = 0, 0.0
    try:
        with tempfile.TemporaryFile(dir=path, prefix="slurminfer-doctor-", buffering=0) as file:
            began = time.monotonic()
            while written < _MOST_BYTES and took < _LONGEST_S:
                written += file.write(_CHUNK) or 0
                os.fsync(file.fileno())
                took = time.monotonic() - began
    except OSError:
        return None
    return written / max(took, 1e-6)
