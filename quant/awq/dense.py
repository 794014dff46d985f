"""One decoder layer in plain PyTorch, over whole sequences: what calibration runs.

The native engine computes the same layer over a paged cache; here nothing is cached, and what goes into each linear
layer can be looked at.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

from ..checkpoint.config import ModelConfig
from ..checkpoint.tensors import (
    DOWN_PROJ,
    GATE_UP,
    INPUT_NORM,
    K_NORM,
    LINEARS,
    O_PROJ,
    POST_NORM,
    Q_NORM,
    QKV,
)
from ..numerics import native_dtype
from ..rope import Rotation, rotate

Tensors = Mapping[str, torch.Tensor]
Observe = Callable[[str, torch.Tensor], None]

# What goes into linear layers, and the layers that it goes into.
INPUTS: Mapping[str, tuple[str, ...]] = {
    "attention": QKV,
    "heads": (O_PROJ,),
    "mlp": GATE_UP,
    "product": (DOWN_PROJ,),
}


class DenseLayer:
    """A layer of float32 `tensors`, named and shaped as `tensor_shapes` of checkpoint/tensors.py says.

    Hidden states stay float32. Matrix products are in the device's fastest dtype, which models are run in anyway.
    """

    def __init__(self, config: ModelConfig, index: int, tensors: Tensors) -> None:
        self._config, self._window = config, config.windows[index]
        dtype = native_dtype(tensors[f"{INPUT_NORM}.weight"].device)
        matrices = {f"{name}.weight" for name in LINEARS} | {f"{name}.bias" for name in LINEARS}
        self._tensors = {name: t.to(dtype) if name in matrices else t for name, t in tensors.items()}

    def __call__(self, x: torch.Tensor, rotation: Rotation, observe: Observe = lambda name, x: None) -> torch.Tensor:
        """Compute the layer's output [sequences, tokens, hidden_size] from x of that shape.

        `rotation` is `Rope.at` of the tokens' positions.

        `observe` is called with each of INPUTS and what goes in, [sequences, tokens, inputs].
        """
        normed = self._norm(INPUT_NORM, x)
        observe("attention", normed)
        heads = self._attend(normed, rotation)
        observe("heads", heads)
        x = x + self._linear(O_PROJ, heads)
        normed = self._norm(POST_NORM, x)
        observe("mlp", normed)
        gate, up = (self._linear(name, normed) for name in GATE_UP)
        product = F.silu(gate).mul_(up)
        observe("product", product)
        return x + self._linear(DOWN_PROJ, product)

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight = self._tensors[f"{name}.weight"]
        return F.linear(x.to(weight.dtype), weight, self._tensors.get(f"{name}.bias"))

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], self._tensors[f"{name}.weight"], self._config.rms_norm_eps)

    def _attend(self, x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        count, length, _ = x.shape
        q, k, v = (self._linear(name, x).view(count, length, -1, self._config.head_dim) for name in QKV)
        if self._config.qk_norm:
            q, k = self._norm(Q_NORM, q), self._norm(K_NORM, k)
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
