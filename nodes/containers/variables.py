"""Which environment variables an engine has in its container.

Those of the node are made for the node's programs: `module load` leaves paths in them that the image does not have. So
only those cross over that engines and their libraries are known to read, and those that the pool's `env` names.
"""

import os
from collections.abc import Mapping

from ...core.processes.python import SAFE_PATH_ENV

_PREFIXES = (
    "SLURMINFER_", "SLURM_JOB_", "SLURM_MEM_", "SLURM_CPUS_", "NCCL_", "RCCL_", "GLOO_", "UCX_", "OMP_", "GOMP_",
    "KMP_", "MKL_", "HF_", "SGLANG_", "VLLM_", "TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_", "LC_",
)  # fmt: skip
_NAMES = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES", "LANG", "TZ", "TMPDIR", "USER", "THP_MEM_ALLOC_ENABLE",
)  # fmt: skip
# Packages in ~/.local were installed for another Python than the image's.
_ALWAYS = {**SAFE_PATH_ENV, "PYTHONNOUSERSITE": "1"}
_APPTAINER_S = ("HOME",)  # which refuses to have it set


def variables(
    engine: Mapping[str, str], pool: Mapping[str, str], environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The variables of the container.

    Args:
        engine: what the engine's adapter sets; these win.
        pool: the pool's `env`.
        environ: of the node.
    """
    known = {name: value for name, value in environ.items() if name in _NAMES or name.startswith(_PREFIXES)}
    found = {**_ALWAYS, **known, **pool, **engine}
    return {name: value for name, value in found.items() if name not in _APPTAINER_S}
