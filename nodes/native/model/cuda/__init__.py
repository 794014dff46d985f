"""Kernels for GPUs that replace operations of PyTorch, and decode steps recorded as CUDA graphs.

Modules with Triton's kernels are imported only where `uses_triton`: PyTorch's builds for CPUs come without it.
"""

import os

import torch

from .....quant.kv import KVFormat, Plain


def uses_triton(device: torch.device) -> bool:
    """Whether there are kernels for `device`; with TRITON_INTERPRET=1, which is for tests, a CPU interprets them."""
    return device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def reads_cache(format: KVFormat, device: torch.device) -> bool:
    """Whether Triton kernels read and write a KV cache of `format` on `device` in place: an unquantized one."""
    return uses_triton(device) and isinstance(format, Plain)
