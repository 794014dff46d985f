"""A decoder whose layers the compiled library computes; nodes/native/decoder.py has the same model, as the reference.

Linear layers read 4- or 8-bit weights as they are, at any number of rows, and round their inputs to 8 bits by group; or
weights and inputs are bfloat16. Everything else is float32, but for what attends to keys and values in bfloat16. No bit
of an answer depends on what else is in a step, only on whether a token came in a chunk of more than 16, which attends
in blocks.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from ....quant.checkpoint.config import ModelConfig
from ....quant.checkpoint.quantized import GroupQuantized, concatenate
from ....quant.checkpoint.weights import Weights
from ....quant.kv import KVFormat, Plain
from ....quant.rope import Rope
from ..kv_cache import KVCache
from ..step import Chunk
from . import library
from .buffers import Buffers
from .layout import Layout
from .pack import GROUPS, Packed, fits, pack, pack_dense, round_to_bytes

_VECTOR = 16  # numbers that the library computes at once
_WIDEST_HEAD = 256
_DENSE_BITS = 16


class FusedDecoder:
    """A whole model on a CPU, made by `load_fused`. The KV cache comes later: see `attach`."""

    def __init__(self, path: Path, config: ModelConfig, weights: Weights, context_length: int) -> None:
        self._library, self._config = library.load(path), config
        self._tensors: list[torch.Tensor] = []  # what the structures point into
        self._layers = (library.Layer * config.num_layers)()
        for index in range(config.num_layers):
            self._layers[index] = self._layer(weights, index)
        cos, sin = Rope(config, context_length, torch.float32, torch.device("cpu")).tables
        self._tables = cos, sin
        self._embedding = weights.read("model.embed_tokens.weight", config.vocab_size, config.hidden_size)
        self._norm = self._float(weights.read("model.norm.weight", config.hidden_size))
        self._head = self._keep(self._pack_head(weights)).matrix
        self._buffers = Buffers(config, self._head.outputs)

    @property
    def weight_bytes(self) -> int:
        """Of linear layers, head and norms: what a step of one token reads, beside keys and values."""
        return sum(tensor.nbytes for tensor in self._tensors)

    def attach(self, cache: KVCache) -> None:
        """Keep keys and values in `cache`. To be called once, before the first step."""
        self._cache, config = cache, self._config
        for index, layer in enumerate(self._layers):
            layer.cache = cache.tokens(index).data_ptr()
        self._model = library.Model(
            self._layers, *(table.data_ptr() for table in self._tables),
            config.hidden_size, config.intermediate_size, config.num_heads, config.num_kv_heads, config.head_dim,
            cache.block_size, cache.format.dtype == torch.float32, config.rms_norm_eps,
        )  # fmt: skip

    def forward(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        """See `Model.forward`; the result is valid until the next call."""
        layout = Layout(chunks, self._cache.block_size)
        room = self._buffers.take(len(layout.tokens), layout.pieces, len(layout.logits_rows))
        room.x.copy_(F.embedding(layout.tokens, self._embedding))
        step = library.Step(
            len(layout.tokens), layout.single, len(layout.block_rows), torch.get_num_threads(), layout.tables.shape[1],
            layout.positions.data_ptr(), layout.sequence.data_ptr(), layout.tables.data_ptr(),
            layout.split_start.data_ptr(), layout.block_rows.data_ptr(), *room.pointers,
        )  # fmt: skip
        model, at = ctypes.addressof(self._model), ctypes.addressof(step)
        self._library.run_layers(model, at, self._config.num_layers)
        rows, head = room.x[layout.logits_rows], ctypes.addressof(self._head)
        self._library.run_head(model, at, head, self._norm, len(rows), rows.data_ptr(), room.logits.data_ptr())
        return room.logits[:, : self._config.vocab_size]

    def _layer(self, weights: Weights, index: int) -> library.Layer:
        config, prefix = self._config, f"model.layers.{index}."
        q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        hidden, inner = config.hidden_size, config.intermediate_size

        def linear(parts: dict[str, int], inputs: int, bias: bool) -> library.Matrix:
            found = [weights.linear(prefix + name, n, inputs) for name, n in parts.items()]
            biases = [weights.read(f"{prefix}{name}.bias", n) for name, n in parts.items()] if bias else []
            return self._keep(_pack(found, biases)).matrix

        def norm(name: str, size: int, there: bool = True) -> int | None:
            return self._float(weights.read(f"{prefix}{name}.weight", size)) if there else None

        return library.Layer(
            linear({"self_attn.q_proj": q, "self_attn.k_proj": kv, "self_attn.v_proj": kv}, hidden, config.qkv_bias),
            linear({"self_attn.o_proj": hidden}, q, config.o_bias),
            linear({"mlp.gate_proj": inner, "mlp.up_proj": inner}, hidden, config.mlp_bias),
            linear({"mlp.down_proj": hidden}, inner, config.mlp_bias),
            norm("input_layernorm", hidden),
            norm("post_attention_layernorm", hidden),
            norm("self_attn.q_norm", config.head_dim, config.qk_norm),
            norm("self_attn.k_norm", config.head_dim, config.qk_norm),
            None,
            config.windows[index] or 0,
        )

    def _pack_head(self, weights: Weights) -> Packed:
        """Of a quantized model, a dense head is rounded to 8 bits."""
        config = self._config
        head: torch.Tensor | GroupQuantized = self._embedding
        if not config.tie_word_embeddings:
            head = weights.linear("lm_head", config.vocab_size, config.hidden_size)
        if isinstance(head, torch.Tensor) and self._layers[0].o.bits != _DENSE_BITS:
            head = round_to_bytes(head, self._layers[0].o.group)
        return _pack([head], [])

    def _keep(self, packed: Packed) -> Packed:
        self._tensors.extend(packed.tensors)
        return packed

    def _float(self, tensor: torch.Tensor) -> int:
        """Where a float32 copy of `tensor` lies."""
        self._tensors.append(tensor.float().contiguous())
        return self._tensors[-1].data_ptr()


class _DoesNotFit(Exception):
    """The library has no form for a weight."""


def load_fused(path: Path, config: ModelConfig, weights: Weights, context_length: int) -> FusedDecoder | None:
    """The decoder that computes with the library at `path`; None if that has no form for one of the weights.

    Quantized linear layers must have 4 or 8 bits, in groups of a multiple of 32, with their inputs in order.
    Raises CorruptModelError, OSError (the library does not load).
    """
    try:
        return FusedDecoder(path, config, weights, context_length)
    except _DoesNotFit:
        return None


def can_fuse(config: ModelConfig, format: KVFormat, device: torch.device) -> bool:
    """Whether `load_fused` is worth trying, as far as can be told without reading weights.

    A model that is not quantized is computed in bfloat16. With AMX, PyTorch's products of many rows are faster.
    """
    sizes = (config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim)
    in_bfloat16 = format.dtype == torch.bfloat16 and not torch.cpu._is_amx_tile_supported()
    return (
        device.type == "cpu"
        and isinstance(format, Plain)
        and (in_bfloat16 if config.quantization is None else format.dtype in (torch.bfloat16, torch.float32))
        and config.head_dim % _VECTOR == 0
        and config.head_dim <= _WIDEST_HEAD
        and all(size % GROUPS[-1] == 0 for size in sizes)
    )


def _pack(parts: Sequence[torch.Tensor | GroupQuantized], biases: Sequence[torch.Tensor]) -> Packed:
    """Weights side by side: all quantized alike, or all dense."""
    dense = [part for part in parts if isinstance(part, torch.Tensor)]
    if len(dense) == len(parts):
        return pack_dense(dense, biases)
    quantized = [part for part in parts if isinstance(part, GroupQuantized)]
    whole = concatenate(quantized) if not dense else None
    if whole is None or not fits(whole):
        raise _DoesNotFit
    return pack(whole, biases)
