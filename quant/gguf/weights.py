"""GGUF tensors -> safetensors with Hugging Face names, one tensor in memory at a time.

The dtype is the narrowest that keeps what the file says: block-quantized and F16 weights become float16, because
their scales are float16 and its 11 significant bits hold scale x integer far better than bfloat16's 8; BF16 ones
become bfloat16, F32 ones stay float32. A model with a weight beyond float16's range becomes bfloat16 as a whole.

Linear layers may also stay in the blocks that the file has them in: `layer.blocks`, uint8 [out, bytes a row].
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import ReaderTensor
from gguf.quants import dequantize

from ...core.errors import CorruptModelError, UnsupportedModelError
from ..progress import Progress
from ..shards import Dtype, TensorInfo, write_shards
from .layouts import LAYOUTS
from .reader import GgufFile

Floats = npt.NDArray[np.float32]

SUPPORTED_TYPES = (
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4",
)  # fmt: skip

_OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_HEAD = {"output.weight": "lm_head.weight"}
_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_LAYER_EXTRA = {
    "llama": {},
    "qwen2": {f"attn_{part}.bias": f"self_attn.{part}_proj.bias" for part in "qkv"},
    "qwen3": {f"attn_{part}_norm.weight": f"self_attn.{part}_norm.weight" for part in "qk"},
}
_AS_WIDE = {"F32", "F16", "BF16"}  # converting these to 16 bits costs nothing
_NOT_WEIGHTS = {"rope_freqs.weight"}  # config.json says in rope_scaling what it holds


class Float16OverflowError(Exception):
    """A weight lies beyond what float16 can hold."""


def weights_dtype(file: GgufFile) -> Dtype:
    """The dtype that keeps the values of the file's matrices."""
    types = {tensor.tensor_type.name for tensor in file.tensors.values() if len(tensor.shape) > 1}
    if types == {"F32"}:
        return "float32"
    return "bfloat16" if "BF16" in types else "float16"


def write_weights(file: GgufFile, config: dict[str, Any], directory: Path, progress: Progress) -> None:
    """Write all tensors in `config["torch_dtype"]`, but the layers in `quantization_config` in their blocks.

    Raises UnsupportedModelError, CorruptModelError, and Float16OverflowError where float16 cannot hold a weight.
    """
    names = tensor_names(file, config["num_hidden_layers"])
    check_types(file.path, (file.tensors[theirs] for theirs in names.values()))
    dtype = config["torch_dtype"]
    kept = {f"{layer}.weight" for layer in config.get("quantization_config", {}).get("types", ())}
    blocks = {_blocks_name(ours): theirs for ours, theirs in names.items() if ours in kept}
    dense = {ours: theirs for ours, theirs in names.items() if ours not in kept}
    infos = {ours: TensorInfo(dtype, _shape(file.tensors[theirs])) for ours, theirs in dense.items()}
    infos |= {ours: TensorInfo("uint8", file.tensors[theirs].data.shape) for ours, theirs in blocks.items()}

    def values(ours: str) -> npt.NDArray[Any]:
        if ours in blocks:
            return load_blocks(file, blocks[ours], config)
        return encode(load(file, dense[ours], config), dtype)

    write_shards(directory, infos, values, progress)


def kept_types(file: GgufFile, layers: int) -> dict[str, Any]:
    """What config.json says of the linear layers of a file that keeps its blocks.

    "types": GGUF types by layer, such as "lm_head", of those that a kernel computes with, of LAYOUTS. "converted":
    the number, types and bytes in the file of those that become 16 bits for want of such a kernel, if there are any.

    Raises as `tensor_names`, and UnsupportedModelError where no layer is of such a type.
    """
    names = tensor_names(file, layers).items()
    linear = {ours.removesuffix(".weight"): file.tensors[theirs] for ours, theirs in names if _is_linear(ours)}
    types = {layer: tensor.tensor_type.name for layer, tensor in linear.items()}
    kept = {layer: type for layer, type in types.items() if type in LAYOUTS}
    if not kept:
        raise UnsupportedModelError(
            f"{file.path} has no linear layers of type {', '.join(LAYOUTS)} to keep quantized; "
            f"they are {', '.join(sorted(set(types.values())))}"
        )
    converted = [tensor for layer, tensor in linear.items() if layer not in kept and types[layer] not in _AS_WIDE]
    return {"types": kept} | ({"converted": _described(converted)} if converted else {})


def _described(tensors: Sequence[ReaderTensor]) -> dict[str, Any]:
    return {
        "layers": len(tensors),
        "types": sorted({tensor.tensor_type.name for tensor in tensors}),
        "bytes_in_file": sum(int(tensor.n_bytes) for tensor in tensors),
        "bytes": sum(2 * int(tensor.n_elements) for tensor in tensors),
    }


def tensor_names(file: GgufFile, layers: int) -> dict[str, str]:
    """GGUF names by Hugging Face names. Raises where the file lacks a tensor, or has one of no known use."""
    layer = _LAYER | _LAYER_EXTRA[file.architecture]
    names = {ours: theirs for theirs, ours in _OUTER.items()}
    for i in range(layers):
        names |= {f"model.layers.{i}.{ours}": f"blk.{i}.{theirs}" for theirs, ours in layer.items()}
    names |= {ours: theirs for theirs, ours in _HEAD.items() if theirs in file.tensors}
    missing = sorted(set(names.values()) - set(file.tensors))
    if missing:
        raise CorruptModelError(f"{file.path} lacks {len(missing)} tensors: {', '.join(missing[:5])}")
    unknown = sorted(set(file.tensors) - set(names.values()) - _NOT_WEIGHTS)
    if unknown:
        raise UnsupportedModelError(
            f"{file.path}: tensors that a plain {file.architecture} model does not have: {', '.join(unknown[:5])}"
        )
    return names


def check_types(path: Path, tensors: Iterable[ReaderTensor]) -> None:
    """Raises UnsupportedModelError where a tensor is of none of SUPPORTED_TYPES; `path` names the file in it."""
    unknown = sorted({tensor.tensor_type.name for tensor in tensors} - set(SUPPORTED_TYPES))
    if unknown:
        raise UnsupportedModelError(
            f"{path} has tensors of type {', '.join(unknown)}; supported: {', '.join(SUPPORTED_TYPES)}"
        )


def load(file: GgufFile, name: str, config: dict[str, Any]) -> Floats:
    """The dequantized tensor, [out, in], rows as Hugging Face orders them. Raises CorruptModelError."""
    tensor = file.tensors[name]
    with np.errstate(all="ignore"):  # damaged scales overflow: the check below says so
        values: Floats = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    _check_finite(file, name, values)
    return _hugging_face_order(file, name, values, config)


def load_blocks(file: GgufFile, name: str, config: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """The tensor's blocks, uint8 [out, bytes a row], rows as Hugging Face orders them. Raises CorruptModelError."""
    tensor = file.tensors[name]
    layout = LAYOUTS[tensor.tensor_type.name]
    blocks = tensor.data.reshape(-1, layout.nbytes)
    _check_finite(file, name, np.ascontiguousarray(blocks[:, : 2 * layout.floats]).view(np.float16))
    return np.ascontiguousarray(_hugging_face_order(file, name, tensor.data, config))


def _check_finite(file: GgufFile, name: str, values: npt.NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise CorruptModelError(f"{file.path}: tensor {name} has values that are not finite numbers")


def _hugging_face_order(
    file: GgufFile, name: str, values: npt.NDArray[Any], config: dict[str, Any]
) -> npt.NDArray[Any]:
    if file.architecture == "llama" and name.endswith("attn_q.weight"):
        return _unpermute(file, name, values, config["num_attention_heads"], config["head_dim"])
    if file.architecture == "llama" and name.endswith("attn_k.weight"):
        return _unpermute(file, name, values, config["num_key_value_heads"], config["head_dim"])
    return values


def encode(values: Floats, dtype: Dtype) -> npt.NDArray[Any]:
    """The values in `dtype`, contiguous; bfloat16 as its bits in uint16. Raises Float16OverflowError."""
    if dtype == "float16":
        if np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
            raise Float16OverflowError
        return np.ascontiguousarray(values, dtype=np.float16)
    if dtype == "bfloat16":
        return _bfloat16_bits(np.ascontiguousarray(values))
    return np.ascontiguousarray(values)


def _bfloat16_bits(values: Floats) -> npt.NDArray[np.uint16]:
    """Rounded to nearest, ties to even: add just under half of the lost part, more if the kept part is odd."""
    bits = values.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return rounded.astype(np.uint16)


def _unpermute(file: GgufFile, name: str, values: npt.NDArray[Any], heads: int, head_dim: int) -> npt.NDArray[Any]:
    """Undo llama.cpp's row order for arch llama: it rotates neighbours (2i, 2i+1), Hugging Face halves (i, i + d/2)."""
    if values.shape[0] != heads * head_dim:
        raise CorruptModelError(f"{file.path}: {name} has {values.shape[0]} rows, expected {heads} x {head_dim}")
    pairs = values.reshape(heads, head_dim // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _is_linear(name: str) -> bool:
    return name.endswith("_proj.weight") or name in _HEAD.values()


def _blocks_name(name: str) -> str:
    return name.removesuffix("weight") + "blocks"


def _shape(tensor: ReaderTensor) -> tuple[int, ...]:
    return tuple(int(size) for size in reversed(tensor.shape))
