"""What this process computes with, for whoever wonders why one worker is slower than another."""

import os
from pathlib import Path

import torch

from ....core.machine.cpus import allowed_cpus
from ....core.machine.libraries import ALLOCATORS, OPENMP, loaded


def describe() -> dict[str, str]:
    """Once the model is loaded."""
    found, openmp, allocator = allowed_cpus(), loaded(OPENMP), loaded(ALLOCATORS)
    return {
        "threads": str(torch.get_num_threads()),
        "cpus": str(found.cpus),
        "cores": str(found.cores),
        "numa_nodes": str(found.numa_nodes),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "openmp": _names(openmp),
        "openmp_spin": os.environ.get("GOMP_SPINCOUNT", os.environ.get("OMP_WAIT_POLICY", "")),
        "allocator": _names(allocator) or "libc",
        "huge_pages": os.environ.get("THP_MEM_ALLOC_ENABLE", "0"),
    }


def _names(paths: list[str]) -> str:
    return " ".join(Path(path).name.partition(".so")[0] for path in paths)
