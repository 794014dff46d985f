"""The weights of a whole model as the library reads them: packed from a checkpoint, or as they were packed before."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .....quant.checkpoint.config import ModelConfig
from .....quant.checkpoint.quantized import GroupQuantized, concatenate
from .....quant.checkpoint.weights import Reads
from ..parallel.shard import Shard
from .pack import DENSE_BITS, Packed, fits, pack, pack_dense, round_to_bytes


class DoesNotFitError(Exception):
    """The library has no form for a weight; it says why."""


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
        norms = (self.input_norm, self.post_norm, self.q_norm, self.k_norm)
        packed = (self.qkv, self.o, self.gate_up, self.down)
        return [*(t for weight in packed for t in weight.tensors), *(norm for norm in norms if norm is not None)]


@dataclass(frozen=True)
class Parts:
    """A model, or a stage of one: the last has norm and head, the first has the embedding."""

    layers: Sequence[LayerParts]
    norm: torch.Tensor | None  # float32
    head: Packed | None
    embedding: torch.Tensor | None  # [vocabulary, hidden], in the engine's dtype

    @property
    def widest(self) -> int:
        """Inputs of a linear layer, at most."""
        layers = (weight for layer in self.layers for weight in (layer.qkv, layer.o, layer.gate_up, layer.down))
        return max(weight.inputs for weight in layers)

    @property
    def step_bytes(self) -> int:
        """What a step of one token reads, beside keys and values."""
        tensors = [tensor for layer in self.layers for tensor in layer.tensors]
        if self.norm is not None and self.head is not None:
            tensors += [self.norm, *self.head.tensors]
        return sum(tensor.nbytes for tensor in tensors)


def pack_model(config: ModelConfig, weights: Reads, shard: Shard | None = None) -> Parts:
    """Layer by layer; `config` is that of the `shard`, if there is one. Raises CorruptModelError, DoesNotFitError."""
    layers = [_layer(config, weights, f"model.layers.{index}.") for index in range(config.num_layers)]
    is_first, is_last = shard is None or shard.is_first, shard is None or shard.is_last
    embedding = norm = head = None
    if is_first or (is_last and config.tie_word_embeddings):
        embedding = weights.read("model.embed_tokens.weight", config.vocab_size, config.hidden_size)
    if is_last:
        norm = weights.read("model.norm.weight", config.hidden_size).float()
        head = _head(config, weights, embedding, layers[0].qkv)
    return Parts(layers, norm, head, embedding if is_first else None)


def _layer(config: ModelConfig, weights: Reads, prefix: str) -> LayerParts:
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size

    def linear(parts: dict[str, int], inputs: int, bias: bool) -> Packed:
        found = [weights.linear(prefix + name, n, inputs) for name, n in parts.items()]
        biases = [weights.read(f"{prefix}{name}.bias", n) for name, n in parts.items()] if bias else []
        return _pack(found, biases)

    def norm(name: str, size: int) -> torch.Tensor:
        return weights.read(f"{prefix}{name}.weight", size).float()

    return LayerParts(
        qkv=linear({"self_attn.q_proj": q, "self_attn.k_proj": kv, "self_attn.v_proj": kv}, hidden, config.qkv_bias),
        o=linear({"self_attn.o_proj": hidden}, q, config.o_bias),
        gate_up=linear({"mlp.gate_proj": inner, "mlp.up_proj": inner}, hidden, config.mlp_bias),
        down=linear({"mlp.down_proj": hidden}, inner, config.mlp_bias),
        input_norm=norm("input_layernorm", hidden),
        post_norm=norm("post_attention_layernorm", hidden),
        q_norm=norm("self_attn.q_norm", config.head_dim) if config.qk_norm else None,
        k_norm=norm("self_attn.k_norm", config.head_dim) if config.qk_norm else None,
    )


def _head(config: ModelConfig, weights: Reads, embedding: torch.Tensor | None, like: Packed) -> Packed:
    """The head, packed. A quantized model's dense head is rounded to 8 bits, in groups `like` those of its layers."""
    head: torch.Tensor | GroupQuantized
    if embedding is not None and config.tie_word_embeddings:
        head = weights.tied_head(embedding)
    else:
        head = weights.linear("lm_head", config.vocab_size, config.hidden_size)
    if isinstance(head, torch.Tensor) and like.bits != DENSE_BITS:
        head = round_to_bytes(head, like.group)
    return _pack([head], [])


def _pack(parts: Sequence[torch.Tensor | GroupQuantized], biases: Sequence[torch.Tensor]) -> Packed:
    """Weights side by side: all quantized alike, or all dense."""
    dense = [part for part in parts if isinstance(part, torch.Tensor)]
    if len(dense) == len(parts):
        return pack_dense(dense, biases)
    quantized = [part for part in parts if isinstance(part, GroupQuantized)]
    whole = concatenate(quantized) if not dense else None
    if whole is None:
        raise DoesNotFitError("weights that are computed as one differ in bits, groups or order of inputs")
    if not fits(whole):
        raise DoesNotFitError(f"weights of {whole.bits} bits in groups of {whole.group_size}: no multiple of 32")
    return pack(whole, biases)
