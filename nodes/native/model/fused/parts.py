"""The weights of a whole model as the library reads them: packed from a checkpoint, or as they were packed before."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from .....quant.checkpoint.config import ModelConfig
from .....quant.checkpoint.quantized import GroupQuantized, concatenate
from .....quant.checkpoint.tensors import (
    DOWN_PROJ,
    GATE_UP,
    INPUT_NORM,
    K_NORM,
    O_PROJ,
    POST_NORM,
    Q_NORM,
    QKV,
    DecoderTensors,
)
from .....quant.checkpoint.weights import Reads
from ..parallel.shard import Shard
from .pack import DENSE_BITS, Packed, fits, pack, pack_dense, round_to_bytes


class DoesNotFitError(Exception):
    """The library has no form for a weight. The message says why."""


@dataclass(frozen=True)
class LayerParts:
    """One decoder layer. Norms are float32; q_norm and k_norm only where the model has them."""

    qkv: Packed
    o: Packed
    gate_up: Packed
    down: Packed
    input_norm: torch.Tensor
    post_norm: torch.Tensor
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensors of the layer, norms included."""
        norms = (self.input_norm, self.post_norm, self.q_norm, self.k_norm)
        packed = (self.qkv, self.o, self.gate_up, self.down)
        return [*(t for weight in packed for t in weight.tensors), *(norm for norm in norms if norm is not None)]


@dataclass(frozen=True)
class Parts:
    """A model, or a stage of one: the last has norm and (see `ModelConfig.has_head`) head, the first the embedding."""

    layers: Sequence[LayerParts]
    norm: torch.Tensor | None  # float32
    head: Packed | None
    embedding: torch.Tensor | None  # [vocabulary, hidden], in the engine's dtype

    @property
    def widest(self) -> int:
        """The largest number of inputs of a linear layer."""
        layers = (weight for layer in self.layers for weight in (layer.qkv, layer.o, layer.gate_up, layer.down))
        return max(weight.inputs for weight in layers)

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that a step of one token reads: linear layers, norms and head."""
        tensors = [tensor for layer in self.layers for tensor in layer.tensors]
        if self.norm is not None and self.head is not None:
            tensors += [self.norm, *self.head.tensors]
        return sum(tensor.nbytes for tensor in tensors)


def pack_model(config: ModelConfig, weights: Reads, shard: Shard | None = None) -> Parts:
    """Read and pack a model layer by layer; `config` is that of the `shard`, if there is one.

    Raises CorruptModelError, and DoesNotFitError where the library has no form for a weight.
    """
    tensors = DecoderTensors(weights, config)
    layers = [_layer(tensors, index, config.qk_norm) for index in range(config.num_layers)]
    is_first, is_last = shard is None or shard.is_first, shard is None or shard.is_last
    embedding = norm = head = None
    has_head = is_last and config.has_head
    if is_first or (has_head and config.tie_word_embeddings):
        embedding = tensors.embedding()
    if is_last:
        norm = tensors.final_norm().float()
    if has_head:
        head = _head(tensors.head(embedding), layers[0].qkv)
    return Parts(layers, norm, head, embedding if is_first else None)


def _layer(tensors: DecoderTensors, index: int, qk_norm: bool) -> LayerParts:
    def linear(*names: str) -> Packed:
        return _pack(*tensors.linear(index, *names))

    def norm(name: str) -> torch.Tensor:
        return tensors.norm(index, name).float()

    return LayerParts(
        qkv=linear(*QKV),
        o=linear(O_PROJ),
        gate_up=linear(*GATE_UP),
        down=linear(DOWN_PROJ),
        input_norm=norm(INPUT_NORM),
        post_norm=norm(POST_NORM),
        q_norm=norm(Q_NORM) if qk_norm else None,
        k_norm=norm(K_NORM) if qk_norm else None,
    )


def _head(weight: torch.Tensor | GroupQuantized, like: Packed) -> Packed:
    """Pack lm_head. A quantized model's dense head is rounded to 8 bits, in groups `like` those of its layers."""
    if isinstance(weight, torch.Tensor) and like.bits != DENSE_BITS:
        weight = round_to_bytes(weight, like.group)
    return _pack([weight], [])


def _pack(parts: Sequence[torch.Tensor | GroupQuantized], biases: Sequence[torch.Tensor]) -> Packed:
    """Weights side by side: quantized where all of them are, else dense."""
    quantized = [part for part in parts if isinstance(part, GroupQuantized)]
    if len(quantized) < len(parts):
        return pack_dense([_dense(part) for part in parts], biases)
    whole = concatenate(quantized) or _concatenate_widened(quantized)
    if whole is None:
        raise DoesNotFitError("weights that are computed as one differ in the order of their inputs")
    if not fits(whole):
        raise DoesNotFitError(f"weights of {whole.bits} bits in groups of {whole.group_size}: no multiple of 32")
    return pack(whole, biases)


def _concatenate_widened(parts: Sequence[GroupQuantized]) -> GroupQuantized | None:
    """One weight of parts that differ in bits or groups, all in 8 bits and the shortest groups; None if orders do."""
    shortest = math.gcd(*(part.group_size for part in parts))
    return concatenate([_widened(part, shortest) for part in parts])


def _widened(part: GroupQuantized, group_size: int) -> GroupQuantized:
    times = part.group_size // group_size
    scales, offsets = (values.repeat_interleave(times, 1) for values in (part.scales, part.offsets))
    return replace(part, bits=8, scales=scales, offsets=offsets)


def _dense(part: torch.Tensor | GroupQuantized) -> torch.Tensor:
    return part.dequantize() if isinstance(part, GroupQuantized) else part
