"""What NVIDIA's driver and CUDA tell of GPUs."""

from collections.abc import Sequence

from ..errors import CommandError
from ..processes import process

VISIBLE = "CUDA_VISIBLE_DEVICES"
_SMI_TIMEOUT_S = 30.0


def ask_smi(argv: Sequence[str]) -> str:
    """What nvidia-smi prints; empty where there is none, or it fails."""
    try:
        return process.run(argv, timeout_s=_SMI_TIMEOUT_S)
    except CommandError:
        return ""
