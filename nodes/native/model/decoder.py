"""The decoder: embedding, layers of attention and gated MLP, norm, head. Pre-norm, as in Llama, Mistral and Qwen.

Of tensor parallelism, a rank's decoder has some heads and neurons: what its attention and MLP add is summed over ranks.
Of a pipeline, it has some layers: what the stage before has computed comes in, unless it is the first.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ....quant.checkpoint.config import ModelConfig
from ....quant.checkpoint.quantized import GroupQuantized
from ....quant.checkpoint.tensors import (
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
from ....quant.checkpoint.weights import Reads
from ....quant.rope import Rope, Rotation
from .batch import ForwardBatch
from .cuda import uses_triton
from .kv_cache import KVCache
from .linears.dense import Linear
from .linears.table import Kernels, make_head, make_linear
from .parallel.shard import Shard
from .pooling import pool, split, without_head
from .step import StepOutput

Reduce = Callable[[torch.Tensor], torch.Tensor]  # the sum over the ranks of a stage


class Norm:
    """Root mean square norm (arXiv 1910.07467)."""

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        self._weight, self._eps_value = weight, eps
        self._eps = torch.tensor(eps, device=weight.device)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x / sqrt(mean(x^2) + eps) * weight over the last dimension, in float32 up to the weight."""
        if x.is_cuda:
            return F.rms_norm(x, self._weight.shape, self._weight, self._eps_value)
        # F.rms_norm is one kernel on a GPU, but ten small ones on a CPU: this takes half of its time.
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = torch.addcmul(self._eps, length, length, value=1 / x.shape[-1]).rsqrt_()
        return (x * scale).to(x.dtype).mul_(self._weight)


class _Loader:
    """Makes the modules of a decoder from its tensors."""

    def __init__(self, weights: Reads, config: ModelConfig, device: torch.device, kernels: Kernels) -> None:
        self.tensors = DecoderTensors(weights, config)
        self._dtype, self._eps, self._device, self._kernels = weights.dtype, config.rms_norm_eps, device, kernels

    def norm(self, layer: int, name: str) -> Norm:
        return Norm(self.tensors.norm(layer, name).to(self._device), self._eps)

    def final_norm(self) -> Norm:
        return Norm(self.tensors.final_norm().to(self._device), self._eps)

    def linear(self, layer: int, *names: str) -> Linear:
        """One module that computes the linear layers `names` side by side."""
        return make_linear(*self.tensors.linear(layer, *names), self._dtype, self._device, self._kernels)

    def head(self, embedding: torch.Tensor | None) -> Linear:
        """The module of lm_head, which quantization formats may leave dense."""
        weight = self.tensors.head(embedding)
        if isinstance(weight, GroupQuantized):
            return make_linear([weight], [], self._dtype, self._device, self._kernels)
        return make_head(weight, self._device, self._kernels)


class Attention:
    """Causal self-attention with grouped key-value heads."""

    def __init__(self, config: ModelConfig, layer: int, loader: _Loader) -> None:
        self._layer, self._window = layer, config.windows[layer]
        self._heads, self._kv_heads, self._head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self._qkv, self._output = loader.linear(layer, *QKV), loader.linear(layer, O_PROJ)
        self._q_norm = loader.norm(layer, Q_NORM) if config.qk_norm else None
        self._k_norm = loader.norm(layer, K_NORM) if config.qk_norm else None

    def __call__(self, x: torch.Tensor, rotation: Rotation, cache: KVCache, batch: ForwardBatch) -> torch.Tensor:
        """[n, hidden_size] -> [n, hidden_size]; writes the step's keys and values into the cache."""
        heads, kv_heads = self._heads, self._kv_heads
        qkv = self._qkv(x).view(len(x), heads + 2 * kv_heads, self._head_dim)
        if self._q_norm and self._k_norm:
            q, k, v = qkv[:, :heads], qkv[:, heads : heads + kv_heads], qkv[:, heads + kv_heads :]
            qkv = torch.cat((self._q_norm(q), self._k_norm(k), v), 1)
        return self._output(batch.attend(qkv, rotation, self._layer, self._window, cache))


class MLP:
    """down(silu(gate(x)) * up(x)), arXiv 2002.05202."""

    def __init__(self, layer: int, loader: _Loader) -> None:
        self._gate_up, self._down = loader.linear(layer, *GATE_UP), loader.linear(layer, DOWN_PROJ)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._down(silu_multiply(self._gate_up(x)))


def silu_multiply(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up [n, inner] of gate and up side by side."""
    if uses_triton(gate_up.device):
        from .cuda import operations

        return operations.silu_multiply(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


class Layer:
    """Attention and MLP, each added to what came in."""

    def __init__(self, config: ModelConfig, index: int, loader: _Loader, reduce: Reduce | None) -> None:
        self._reduce = reduce or (lambda x: x)
        self._input_norm, self._post_norm = loader.norm(index, INPUT_NORM), loader.norm(index, POST_NORM)
        self._attention, self._mlp = Attention(config, index, loader), MLP(index, loader)

    def __call__(self, x: torch.Tensor, rotation: Rotation, cache: KVCache, batch: ForwardBatch) -> torch.Tensor:
        """Changes and returns x [n, hidden_size]."""
        x += self._reduce(self._attention(self._input_norm(x), rotation, cache, batch))
        x += self._reduce(self._mlp(self._post_norm(x)))
        return x


class Decoder:
    """A model on one device, or a part of one."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Reads,
        context_length: int,
        dtype: torch.dtype,
        device: torch.device,
        kernels: Kernels,
        shard: Shard | None = None,
        reduce: Reduce | None = None,
    ) -> None:
        """`config` is that of the part, where there is a `shard`. Raises CorruptModelError."""
        loader = _Loader(weights, config, device, kernels)
        is_first, self._is_last = shard is None or shard.is_first, shard is None or shard.is_last
        ties = self._is_last and config.has_head and config.tie_word_embeddings
        table = loader.tensors.embedding() if is_first or ties else None
        self._embedding = table.to(device) if table is not None and is_first else None
        self._rope = Rope(config, context_length, dtype, device)
        self._layers = [Layer(config, index, loader, reduce) for index in range(config.num_layers)]
        if self._is_last:
            self._norm = loader.final_norm()
            self._head = loader.head(table) if config.has_head else None

    def forward(self, batch: ForwardBatch, cache: KVCache, x: torch.Tensor | None = None) -> StepOutput:
        """Compute logits and pooled hidden states of the rows that are wanted; of a part, logits of its own tokens.

        A stage takes x [n, hidden_size] of the one before, and returns it for the next, in the compute dtype.
        """
        if x is None:
            assert self._embedding is not None, "a later stage takes what the one before has computed"
            x = F.embedding(batch.tokens, self._embedding)
        rotation = self._rope.at(batch.positions)
        for layer in self._layers:
            x = layer(x, rotation, cache, batch)
        if not self._is_last:
            return StepOutput(x)
        states, pooled = split(self._norm(batch.wanted(x)), batch.pool_lengths)
        logits = without_head(states) if self._head is None else self._head(states).float()
        return StepOutput(logits, pool(pooled, batch.pool_lengths))
