"""What a GPU computes otherwise than in PyTorch's operations, and whole decode steps in one launch.

Modules with Triton's kernels are imported only where `uses_triton`: PyTorch's builds for CPUs come without it.
"""

import os

import torch

from .....quant.kv import KVFormat, Plain


def uses_triton(device: torch.device) -> bool:
    """Whether there are kernels for `device`; with TRITON_INTERPRET=1, which is for tests, a CPU interprets them."""
    return device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def reads_cache(format: KVFormat, device: torch.device) -> bool:
    """Whether they read and write such a KV cache."""
    return uses_triton(device) and isinstance(format, Plain)
