"""Models on disk whose weights a test quantizes, and how far results may be from those of others."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from gguf import GGMLQuantizationType
from gguf.quants import quantize
from safetensors.torch import load_file, save_file

from slurminfer.quant.checkpoint.awq import pack


def relative_error(y: torch.Tensor, exact: torch.Tensor) -> float:
    """The norm of the difference to `exact`, in norms of `exact` (float64); 0 for tensors without rows."""
    assert y.shape == exact.shape
    return float((y.cpu().double() - exact).norm() / exact.norm()) if len(y) else 0.0


def to_awq(path: Path, group_size: int = 32) -> None:
    """Round the linear layers of the model in `path` to 4 bits between their groups' extremes, in AWQ's format."""
    tensors = load_file(path / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        groups = tensors.pop(name).float().unflatten(1, (-1, group_size))
        low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
        scales = ((high - low) / 15).half().float()
        zeros = (-low / scales).round().clamp(0, 15)
        codes = (groups / scales.unsqueeze(-1) + zeros.unsqueeze(-1)).round().clamp(0, 15).flatten(1)
        prefix = name.removesuffix("weight")
        tensors[f"{prefix}qweight"] = pack(codes.to(torch.uint8).T.contiguous())
        tensors[f"{prefix}qzeros"] = pack(zeros.to(torch.uint8).T.contiguous())
        tensors[f"{prefix}scales"] = scales.half().T.contiguous()
    save_file(tensors, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": group_size, "version": "gemm"}
    (path / "config.json").write_text(json.dumps(config))


def to_act_order(path: Path, alone: str = "", group_size: int = 32) -> None:
    """Round the linear layers of the model in `path` to 4 bits in GPTQ's format, in act-order (`desc_act`).

    Layers of as many inputs have the same order, but for those whose names end with `alone`.
    """
    tensors = load_file(path / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        weight, prefix = tensors.pop(name).float(), name.removesuffix("weight")
        inputs = weight.shape[1]
        seed = inputs + 1 if alone and prefix.endswith(f"{alone}.") else inputs
        order = torch.randperm(inputs, generator=torch.Generator().manual_seed(seed))
        group_of = torch.empty(inputs, dtype=torch.int32)
        group_of[order] = torch.arange(inputs, dtype=torch.int32) // group_size
        scales = (weight[:, order].unflatten(1, (-1, group_size)).abs().amax(-1) / 7).half()
        codes = (weight / scales[:, group_of].float() + 8).round().clamp(0, 15).to(torch.uint8).T
        octets = codes[0::2] | codes[1::2] << 4  # the first input in the lowest bits of a word
        words = octets.unflatten(0, (-1, 4)).transpose(1, 2).contiguous().view(torch.int32)
        tensors[f"{prefix}qweight"] = words.squeeze(-1)
        tensors[f"{prefix}qzeros"] = torch.full((inputs // group_size, len(weight) // 8), 0x77777777, dtype=torch.int32)
        tensors[f"{prefix}scales"] = scales.T.contiguous()
        tensors[f"{prefix}g_idx"] = group_of
    save_file(tensors, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    described = {"quant_method": "gptq", "bits": 4, "group_size": group_size, "desc_act": True}
    (path / "config.json").write_text(json.dumps(config | {"quantization_config": described}))


# GGUF types of the linear layers of a mix: two that are joined differ in bits,
# and one of three is not quantized.
MIX = {"q_proj": "Q4_1", "k_proj": "Q8_0", "gate_proj": "Q8_0", "up_proj": "Q4_0", "o_proj": "Q4_0"}


def to_gguf_mix(path: Path) -> None:
    """Store the linear layers of the model in `path` in GGUF blocks as in MIX; the others stay as they are."""
    tensors, types = load_file(path / "model.safetensors"), {}
    for name in [name for name in tensors if name.split(".")[-2] in MIX and name.endswith(".weight")]:
        layer = name.removesuffix(".weight")
        types[layer] = MIX[layer.split(".")[-1]]
        blocks = quantize(tensors.pop(name).float().numpy(), GGMLQuantizationType[types[layer]])
        tensors[f"{layer}.blocks"] = torch.from_numpy(blocks)
    save_file(tensors, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    described = {"quant_method": "gguf", "types": types}
    (path / "config.json").write_text(json.dumps(config | {"quantization_config": described}))


# How to store a model that is there in float32.
STORE: dict[str, Callable[[Path], None]] = {
    "awq": to_awq, "act-order": to_act_order, "dense": lambda _: None, "mixed": to_gguf_mix,
}  # fmt: skip
