"""The machine that a benchmark ran on, for its record."""

import importlib.metadata
import os
import platform
from typing import Any

from slurminfer.core.machine.readings import cpu_flags, cpu_name

MIB = 1 << 20
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")


def machine() -> dict[str, Any]:
    """Processor, CPUs that this process may use, the load before it began, and versions."""
    flags = cpu_flags()
    return {
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "features": [flag for flag in _FEATURES if flag in flags],
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "slurminfer")},
    }
