"""The libraries that compute: what they read from the environment when they are loaded, and which of them are here."""

import os
from collections.abc import MutableMapping, Sequence
from ctypes.util import find_library
from pathlib import Path

OPENMP = ("libgomp", "libiomp5", "libomp")
ALLOCATORS = ("libtcmalloc", "libjemalloc", "libmimalloc")
# How often a thread of GCC's OpenMP looks for the others before it sleeps: by default so often that where two programs
# share CPUs, each waits for threads that the other keeps from running. What that costs: docs/engine/native-engine.md.
_SPIN, _SPIN_COUNT, _SAME_AS_SPIN = "GOMP_SPINCOUNT", "2000", "OMP_WAIT_POLICY"
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # PyTorch then asks for them, for large tensors


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what is best for these programs, before PyTorch is imported. What the user has set stays."""
    if _SAME_AS_SPIN not in environ:
        environ.setdefault(_SPIN, _SPIN_COUNT)
    environ.setdefault(_HUGE_PAGES, "1")


def preload(python: str) -> dict[str, str]:
    """`LD_PRELOAD` for PyTorch on CPUs: tcmalloc and Intel's OpenMP, of `python`'s environment or the system."""
    own = Path(python).parents[1] / "lib"
    found = [os.environ.get("LD_PRELOAD")]
    for name in ("libtcmalloc_minimal.so.4", "libiomp5.so"):
        system = find_library(name.partition(".")[0].removeprefix("lib"))
        found.append(str(own / name) if (own / name).exists() else system)
    there = [library for library in found if library]
    return {"LD_PRELOAD": ":".join(there)} if there else {}


def loaded(names: Sequence[str]) -> list[str]:
    """Paths of the libraries in this process whose file names begin so."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    paths = dict.fromkeys(line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6)
    return [path for path in paths if Path(path).name.startswith(tuple(names))]
