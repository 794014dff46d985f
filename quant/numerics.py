"""What a device multiplies in hardware."""

import platform

import torch


def native_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32 (emulated bfloat16 is several times slower)."""
    if device.type == "cuda":
        return torch.bfloat16
    if platform.machine() in ("x86_64", "AMD64"):
        # oneDNN says yes to any AVX512, but converts at every use without these.
        hardware = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        hardware = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if hardware else torch.float32
