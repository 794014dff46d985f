"""Caches of compiled code on the node's own disk.

On a home directory that many nodes share, workers that start together wait for each other's locks in these caches, and
fill its quota. So they are moved to the node's scratch: each one that would be on a shared filesystem, and that the
user has not placed.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import StagingError
from ...core.spec.pool import PoolSpec
from ...core.trust import PRIVATE_FOLDER
from ..doctor.mounts import mount_of
from .scratch import node_scratch, own_folder

_FLASHINFER, _CUBINS = ".cache/flashinfer", "cubins"


@dataclass(frozen=True)
class NodeCaches:
    """Where caches are on this node, and the variables that say so to the engine."""

    folder: Path
    env: Mapping[str, str]


def node_caches(pool: PoolSpec, environ: Mapping[str, str] = os.environ) -> NodeCaches | None:
    """The caches that are moved for a pool's engine; None: all stay where they are."""
    if not pool.local_caches:
        return None
    chosen = {**environ, **pool.env}
    moved = [(name, below) for name, below, usual in _caches(chosen) if name not in chosen and _is_shared(usual)]
    if not moved:
        return None
    try:
        folder = own_folder(node_scratch(environ, outlives_job=True), "caches", _key(pool))
        env = dict(_made(folder, moved))
    except (StagingError, OSError) as error:
        print(f"caches of compiled code stay where they are: {error}", flush=True)
        return None
    return NodeCaches(folder, {**env, **_fetched_kernels(env, chosen)})


def _caches(environ: Mapping[str, str]) -> Iterator[tuple[str, str, Path]]:
    """(variable, folder that it gets, where the cache is without it)."""
    home = Path.home()
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    temporary = Path(tempfile.gettempdir())
    yield "TRITON_CACHE_DIR", "triton", home / ".triton"
    yield "TORCHINDUCTOR_CACHE_DIR", "torchinductor", temporary
    yield "TORCH_EXTENSIONS_DIR", "torch_extensions", cache
    yield "CUDA_CACHE_PATH", "cuda", home / ".nv"
    yield "FLASHINFER_WORKSPACE_BASE", "flashinfer", home / ".cache"
    yield "TVM_FFI_CACHE_DIR", "tvm-ffi", home / ".cache"
    yield "DG_JIT_CACHE_DIR", "deep_gemm", home
    yield "SGLANG_DG_CACHE_DIR", "deep_gemm", home / ".cache"  # SGLang's word for the one before
    yield "SGLANG_CACHE_DIR", "sglang", home / ".cache"
    yield "VLLM_CACHE_ROOT", "vllm", cache


def _is_shared(path: Path) -> bool:
    try:
        return mount_of(path).is_shared
    except OSError:
        return False


def _key(pool: PoolSpec) -> str:
    """One for each environment that compiles: the caches themselves tell versions, models and GPUs apart."""
    environment = f"{pool.container or ''}\n{pool.python or sys.executable}"
    return f"{pool.engine}-{hashlib.sha256(environment.encode()).hexdigest()[:12]}"


def _made(folder: Path, moved: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, below in moved:
        path = folder / below
        path.mkdir(PRIVATE_FOLDER, exist_ok=True)
        yield name, str(path)


def _fetched_kernels(env: Mapping[str, str], chosen: Mapping[str, str]) -> dict[str, str]:
    """Compiled kernels that FlashInfer was told to download into its cache: nodes cannot fetch them again."""
    fetched = Path.home() / _FLASHINFER / _CUBINS
    if "FLASHINFER_WORKSPACE_BASE" in env and "FLASHINFER_CUBIN_DIR" not in chosen and fetched.is_dir():
        return {"FLASHINFER_CUBIN_DIR": str(fetched)}
    return {}
