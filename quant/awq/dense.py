"""One decoder layer in plain PyTorch, over whole sequences: what calibration runs.

The native engine computes the same layer over a paged cache; here nothing is cached, and what goes into each linear
layer can be looked at.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

from ..checkpoint.config import ModelConfig
from ..numerics import native_dtype
from ..rope import Rotation, rotate

Tensors = Mapping[str, torch.Tensor]
Observe = Callable[[str, torch.Tensor], None]

# What goes into linear layers, and the layers that it goes into.
INPUTS: Mapping[str, tuple[str, ...]] = {
    "attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "heads": ("self_attn.o_proj",),
    "mlp": ("mlp.gate_proj", "mlp.up_proj"),
    "product": ("mlp.down_proj",),
}
LINEARS = tuple(name for names in INPUTS.values() for name in names)
NORMS = ("input_layernorm", "post_attention_layernorm")
_QK_NORMS = ("self_attn.q_norm", "self_attn.k_norm")


def linear_shape(config: ModelConfig, name: str) -> tuple[int, int]:
    """(outputs, inputs) of one of LINEARS."""
    heads, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size
    return {
        "self_attn.q_proj": (heads, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, heads),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }[name]


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names, as after "model.layers.N.", and shapes of all tensors of one layer."""
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (config.hidden_size,) for name in NORMS}
    shapes |= {f"{name}.weight": linear_shape(config, name) for name in LINEARS}
    if config.qk_norm:
        shapes |= {f"{name}.weight": (config.head_dim,) for name in _QK_NORMS}
    return shapes | {f"{name}.bias": linear_shape(config, name)[:1] for name in LINEARS if _has_bias(config, name)}


class DenseLayer:
    """A layer of float32 `tensors`, named and shaped as in `tensor_shapes`.

    Hidden states stay float32. Matrix products are in the device's fastest dtype, which models are run in anyway.
    """

    def __init__(self, config: ModelConfig, index: int, tensors: Tensors) -> None:
        self._config, self._window = config, config.windows[index]
        dtype = native_dtype(tensors["input_layernorm.weight"].device)
        matrices = {f"{name}.weight" for name in LINEARS} | {f"{name}.bias" for name in LINEARS}
        self._tensors = {name: t.to(dtype) if name in matrices else t for name, t in tensors.items()}

    def __call__(self, x: torch.Tensor, rotation: Rotation, observe: Observe = lambda name, x: None) -> torch.Tensor:
        """[sequences, tokens, hidden_size] of the same; `rotation` is Rope.at of the tokens' positions.

        `observe` is called with each of INPUTS and what goes in, [sequences, tokens, inputs].
        """
        normed = self._norm("input_layernorm", x)
        observe("attention", normed)
        heads = self._attend(normed, rotation)
        observe("heads", heads)
        x = x + self._linear("self_attn.o_proj", heads)
        normed = self._norm("post_attention_layernorm", x)
        observe("mlp", normed)
        product = F.silu(self._linear("mlp.gate_proj", normed)).mul_(self._linear("mlp.up_proj", normed))
        observe("product", product)
        return x + self._linear("mlp.down_proj", product)

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight = self._tensors[f"{name}.weight"]
        return F.linear(x.to(weight.dtype), weight, self._tensors.get(f"{name}.bias"))

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], self._tensors[f"{name}.weight"], self._config.rms_norm_eps)

    def _attend(self, x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        count, length, _ = x.shape
        q, k, v = (
            self._linear(f"self_attn.{name}_proj", x).view(count, length, -1, self._config.head_dim) for name in "qkv"
        )
        if self._config.qk_norm:
            q, k = self._norm("self_attn.q_norm", q), self._norm("self_attn.k_norm", k)
        q, k = (rotate(x, *rotation).to(v.dtype) for x in (q, k))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        mask = self._mask(length, x.device)
        out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=True)
        return out.transpose(1, 2).reshape(count, length, -1)

    def _mask(self, length: int, device: torch.device) -> torch.Tensor | None:
        if self._window is None or length <= self._window:
            return None
        places = torch.arange(length, device=device)
        distance = places.unsqueeze(1) - places
        return (distance >= 0) & (distance < self._window)


def _has_bias(config: ModelConfig, name: str) -> bool:
    if name.startswith("mlp."):
        return config.mlp_bias
    return config.o_bias if name == "self_attn.o_proj" else config.qkv_bias
