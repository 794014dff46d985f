"""A decoder whose layers the compiled library computes; model/decoder.py has the same model, as the reference.

Linear layers read 4- or 8-bit weights as they are, at any number of rows, and round their inputs to 8 bits by group; or
weights and inputs are bfloat16. Everything else is float32, but for what attends to keys and values in bfloat16, which
those of 8 and 4 bits become where the CPU multiplies it. No bit of an answer depends on what else is in a step, or on
how many of its tokens come at once, only on whether a token is the prompt's (`Chunk.prompt`), which attends in blocks.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from .....quant.checkpoint.config import ModelConfig
from .....quant.kv import Int4, Int8, KVFormat
from .....quant.rope import Rope
from ..decoder import Norm, Reduce
from ..kv_cache import KVCache
from ..parallel.sequence import SequenceGroup
from ..pooling import pool, split, without_head
from ..step import Chunk, StepOutput
from . import library
from .buffers import Buffers, Room
from .layout import RowLayout
from .pack import GROUPS
from .parts import Parts
from .sequence import SharedStep
from .structs import CacheKind, LayerStruct, ModelStruct, StepStruct

if TYPE_CHECKING:
    from ..parallel.shared_memory import SharedMemory

_VECTOR = 16  # numbers that the library computes at once
_WIDEST_HEAD = 256


class FusedDecoder:
    """A model on a CPU, or one rank's part of it. `attach` gives it the KV cache before the first step."""

    def __init__(
        self,
        path: Path,
        config: ModelConfig,
        parts: Parts,
        context_length: int,
        reduce: Reduce | None = None,
        sequence: SequenceGroup | None = None,
        memory: "SharedMemory | None" = None,
    ) -> None:
        """Load the library at `path` to compute `parts` of a model.

        Args:
            context_length: positions that rotary tables are made for.
            reduce: sums [rows, hidden_size] over the tensor ranks of this stage; None where there are no others.
            sequence: the ranks that share the tokens of every sequence; None where there are no others.
            memory: shared memory of all tensor ranks, through which the library itself sums in place of `reduce`.

        Raises OSError (the library does not load), EngineError (its structs differ from those of structs.py).
        """
        self._reduce, self._sequence, self._memory = reduce, sequence, memory
        self._library, self._config, self._parts = library.load(path), config, parts
        self._layers = (LayerStruct * config.num_layers)()
        for index, layer in enumerate(parts.layers):
            self._layers[index] = LayerStruct(
                layer.qkv.matrix, layer.o.matrix, layer.gate_up.matrix, layer.down.matrix,
                *map(_pointer, (layer.input_norm, layer.post_norm, layer.q_norm, layer.k_norm)),
                None, None, config.windows[index] or 0,
            )  # fmt: skip
        self._tables = Rope(config, context_length, torch.float32, torch.device("cpu")).tables
        self._head = None if parts.head is None else parts.head.matrix
        self._norm = None if parts.norm is None else Norm(parts.norm, config.rms_norm_eps)  # None: not the last stage
        self._buffers = Buffers(config, parts.widest, 0 if self._head is None else self._head.outputs)

    @property
    def weight_bytes(self) -> int:
        """Bytes of linear layers, head and norms: what a step of one token reads, beside keys and values."""
        return self._parts.step_bytes

    def attach(self, cache: KVCache) -> None:
        """Keep keys and values in `cache`. Must be called once, before the first step."""
        self._cache, config = cache, self._config
        for index, layer in enumerate(self._layers):
            vectors, *scales = cache.parts(index)
            layer.cache, layer.cache_scales = vectors.data_ptr(), scales[0].data_ptr() if scales else None
        self._model = ModelStruct(
            self._layers, *(table.data_ptr() for table in self._tables),
            config.hidden_size, config.intermediate_size, config.num_heads, config.num_kv_heads, config.head_dim,
            cache.block_size, _cache_kind(cache.format), config.rms_norm_eps,
        )  # fmt: skip

    def forward(self, chunks: Sequence[Chunk], x: torch.Tensor | None = None) -> StepOutput:
        """Compute one step, as `Decodes.forward` describes; the result is valid until the next call."""
        layout = RowLayout(chunks, self._cache.block_size)
        if self._sequence is not None:
            return self._forward_shared(layout, self._sequence, x)
        shares = self._reduce is not None
        room = self._buffers.take(len(layout.tokens), layout.pieces, layout.num_logits, shares)
        room.x.copy_(self._embed(layout.tokens) if x is None else x)
        step = StepStruct(
            len(layout.tokens), layout.single, len(layout.block_rows), torch.get_num_threads(), layout.tables.shape[1],
            layout.pieces,
            layout.positions.data_ptr(), layout.sequence.data_ptr(), layout.tables.data_ptr(),
            layout.split_start.data_ptr(), layout.block_rows.data_ptr(), *room.pointers,
        )  # fmt: skip
        self._run_layers(step, room)
        if self._norm is None:
            return StepOutput(room.x)
        return self._output(step, room, room.x[layout.wanted_rows], layout.pool_lengths)

    def _forward_shared(self, layout: RowLayout, group: SequenceGroup, x: torch.Tensor | None) -> StepOutput:
        """`forward` of a rank that computes a share of the rows; logits are the first rank's, others have none."""
        step, threads = SharedStep(layout, group, self._config, self._cache.block_size), torch.get_num_threads()
        room = self._buffers.take(step.count, step.pieces, layout.num_logits, self._reduce is not None)
        own = self._embed(layout.tokens[step.share]) if x is None else x
        room.x[: len(own)].copy_(own)
        found = step.run(self._library, self._model, room, threads, self._reduce)
        if self._norm is None:
            return StepOutput(found)
        rows = group.gather_at_first(found, layout.wanted_rows, step.count)
        return self._output(step.step_of_share(room, threads), room, rows, layout.pool_lengths)

    def _embed(self, tokens: torch.Tensor) -> torch.Tensor:
        assert self._parts.embedding is not None, "a later stage takes what the one before has computed"
        return F.embedding(tokens, self._parts.embedding)

    def _run_layers(self, step: StepStruct, room: Room) -> None:
        model, at = ctypes.addressof(self._model), ctypes.addressof(step)
        layers, share = self._config.num_layers, room.share.data_ptr()
        if self._reduce is None:
            self._library.run_layers(model, at, layers, None, None)
            return
        if self._memory is not None:
            self._library.run_layers(model, at, layers, self._memory.sum_address, share)
            self._memory.check()
            return
        for layer in range(layers):
            for is_mlp in (0, 1):
                self._library.run_part(model, at, layer, is_mlp, share)
                room.x.add_(self._reduce(room.share))

    def _output(self, step: StepStruct, room: Room, rows: torch.Tensor, pool_lengths: Sequence[int]) -> StepOutput:
        """Logits and pooled hidden states of the rows that are wanted, of before the final norm."""
        assert self._norm is not None, "the last stage has it"
        rows, pooled = split(rows, pool_lengths)
        logits = without_head(rows) if self._head is None else self._run_head(step, room, rows)
        return StepOutput(logits, pool(self._norm(pooled), pool_lengths))

    def _run_head(self, step: StepStruct, room: Room, rows: torch.Tensor) -> torch.Tensor:
        assert self._head is not None and self._parts.head is not None and self._parts.norm is not None
        head, norm = ctypes.addressof(self._head), self._parts.norm.data_ptr()
        model, at = ctypes.addressof(self._model), ctypes.addressof(step)
        self._library.run_head(model, at, head, norm, len(rows), rows.data_ptr(), room.logits.data_ptr())
        return room.logits[: len(rows), : self._parts.head.outputs]


def can_fuse(config: ModelConfig, format: KVFormat, device: torch.device) -> bool:
    """Whether the library may compute a model, as far as can be told without reading its weights.

    A model that is not quantized is computed in bfloat16.
    """
    sizes = (config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim)
    return (
        device.type == "cpu"
        and format.dtype in ((torch.bfloat16,) if config.quantization is None else (torch.bfloat16, torch.float32))
        and config.head_dim % _VECTOR == 0
        and config.head_dim <= _WIDEST_HEAD
        and all(size % GROUPS[-1] == 0 for size in sizes)
    )


def _cache_kind(format: KVFormat) -> CacheKind:
    if isinstance(format, Int8):
        return CacheKind.INT8
    if isinstance(format, Int4):
        return CacheKind.INT4
    return CacheKind.FLOAT32 if format.dtype == torch.float32 else CacheKind.BFLOAT16


def _pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
