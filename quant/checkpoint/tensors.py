"""The tensors of a decoder as Hugging Face names them in checkpoints of Llama, Mistral, Qwen2 and Qwen3.

Whatever reads or writes such a model takes names, shapes and biases from here.
"""

import torch

from ...core.errors import UnsupportedModelError
from .config import ModelConfig
from .quantized import GroupQuantized
from .weights import Reads

LAYERS = "model.layers."
EMBEDDING, FINAL_NORM, HEAD = "model.embed_tokens", "model.norm", "lm_head"

# Names below the prefix of a layer.
Q_PROJ, K_PROJ, V_PROJ, O_PROJ = "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"
GATE_PROJ, UP_PROJ, DOWN_PROJ = "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"
QKV, GATE_UP = (Q_PROJ, K_PROJ, V_PROJ), (GATE_PROJ, UP_PROJ)  # of one input each
LINEARS = (*QKV, O_PROJ, *GATE_UP, DOWN_PROJ)
INPUT_NORM, POST_NORM = "input_layernorm", "post_attention_layernorm"
Q_NORM, K_NORM = "self_attn.q_norm", "self_attn.k_norm"


def layer_prefix(index: int) -> str:
    """The beginning of the names of all tensors of decoder layer `index`, from 0."""
    return f"{LAYERS}{index}."


def linear_shape(config: ModelConfig, name: str) -> tuple[int, int]:
    """(outputs, inputs) of one of LINEARS."""
    heads, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size
    return {
        Q_PROJ: (heads, hidden),
        K_PROJ: (kv, hidden),
        V_PROJ: (kv, hidden),
        O_PROJ: (hidden, heads),
        GATE_PROJ: (inner, hidden),
        UP_PROJ: (inner, hidden),
        DOWN_PROJ: (hidden, inner),
    }[name]


def has_bias(config: ModelConfig, name: str) -> bool:
    """Whether one of LINEARS has a bias."""
    if name in QKV:
        return config.qkv_bias
    return config.o_bias if name == O_PROJ else config.mlp_bias


def norm_size(config: ModelConfig, name: str) -> int:
    """How many numbers a norm of a layer has. Q_NORM and K_NORM exist only where `config.qk_norm`."""
    return config.head_dim if name in (Q_NORM, K_NORM) else config.hidden_size


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of one unquantized layer, by their names below its prefix."""
    norms = (INPUT_NORM, POST_NORM, *((Q_NORM, K_NORM) if config.qk_norm else ()))
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (norm_size(config, name),) for name in norms}
    shapes |= {f"{name}.weight": linear_shape(config, name) for name in LINEARS}
    return shapes | {f"{name}.bias": linear_shape(config, name)[:1] for name in LINEARS if has_bias(config, name)}


class DecoderTensors:
    """Reads the tensors of a decoder. `config` is that of the part of the model that `weights` hand out.

    All methods raise CorruptModelError where a tensor is missing or has another shape.
    """

    def __init__(self, weights: Reads, config: ModelConfig) -> None:
        self._weights, self._config = weights, config

    def linear(self, layer: int, *names: str) -> tuple[list[torch.Tensor | GroupQuantized], list[torch.Tensor]]:
        """Weights [outputs, inputs] of some of LINEARS that have one input, and their biases [outputs] or no biases."""
        prefix = layer_prefix(layer)
        shapes = {name: linear_shape(self._config, name) for name in names}
        weights = [self._weights.linear(prefix + name, *shape) for name, shape in shapes.items()]
        biased = [name for name in names if has_bias(self._config, name)]
        return weights, [self._weights.read(f"{prefix}{name}.bias", shapes[name][0]) for name in biased]

    def norm(self, layer: int, name: str) -> torch.Tensor:
        """The weight [hidden_size] of INPUT_NORM or POST_NORM, or [head_dim] of Q_NORM or K_NORM."""
        return self._weights.read(f"{layer_prefix(layer)}{name}.weight", norm_size(self._config, name))

    def embedding(self) -> torch.Tensor:
        """The embedding [vocab_size, hidden_size]."""
        return self._weights.read(f"{EMBEDDING}.weight", self._config.vocab_size, self._config.hidden_size)

    def final_norm(self) -> torch.Tensor:
        """The weight [hidden_size] of the norm before lm_head."""
        return self._weights.read(f"{FINAL_NORM}.weight", self._config.hidden_size)

    def head(self, embedding: torch.Tensor | None) -> torch.Tensor | GroupQuantized:
        """The weight of lm_head [vocab_size, hidden_size]; where the model ties it, that is `embedding`."""
        if not self._config.has_head:
            raise UnsupportedModelError("the model has no lm_head: its architecture is for embeddings only")
        if self._config.tie_word_embeddings:
            assert embedding is not None, "lm_head is the embedding"
            return self._weights.tied_head(embedding)
        return self._weights.linear(HEAD, self._config.vocab_size, self._config.hidden_size)
