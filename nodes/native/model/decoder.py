"""The decoder: embedding, layers of attention and gated MLP, norm, head. Pre-norm, as in Llama, Mistral and Qwen.

Of tensor parallelism, a rank's decoder has some heads and neurons: what its attention and MLP add is summed over ranks.
Of a pipeline, it has some layers: what the stage before has computed comes in, unless it is the first.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ....quant.checkpoint.config import ModelConfig
from ....quant.checkpoint.quantized import GroupQuantized
from ....quant.checkpoint.weights import Reads
from ....quant.rope import Rope, Rotation
from .batch import Steps
from .cuda import uses_triton
from .kv_cache import KVCache
from .linears.dense import Linear
from .linears.table import Kernels, make_head, make_linear
from .parallel.shard import Shard

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
    """Reads the modules below one prefix of tensor names."""

    def __init__(
        self, weights: Reads, prefix: str, config: ModelConfig, device: torch.device, kernels: Kernels
    ) -> None:
        self._weights, self._prefix, self._config = weights, prefix, config
        self._device, self._kernels = device, kernels

    def below(self, name: str) -> "_Loader":
        """The loader of the modules below `name`."""
        return _Loader(self._weights, f"{self._prefix}{name}.", self._config, self._device, self._kernels)

    def norm(self, name: str, size: int) -> Norm:
        weight = self._weights.read(f"{self._prefix}{name}.weight", size).to(self._device)
        return Norm(weight, self._config.rms_norm_eps)

    def linear(self, parts: dict[str, int], inputs: int, bias: bool) -> Linear:
        """One layer out of `parts`: name -> number of outputs."""
        weights = [self._weights.linear(f"{self._prefix}{name}", n, inputs) for name, n in parts.items()]
        biases = [self._weights.read(f"{self._prefix}{name}.bias", n) for name, n in parts.items()] if bias else []
        return make_linear(weights, biases, self._weights.dtype, self._device, self._kernels)

    def head(self) -> Linear:
        """The layer `lm_head`, which formats may leave dense."""
        weight = self._weights.linear(f"{self._prefix}lm_head", self._config.vocab_size, self._config.hidden_size)
        if isinstance(weight, GroupQuantized):
            return make_linear([weight], [], self._weights.dtype, self._device, self._kernels)
        return make_head(weight, self._device, self._kernels)


class Attention:
    """Causal self-attention with grouped key-value heads."""

    def __init__(self, config: ModelConfig, layer: int, loader: _Loader) -> None:
        self._layer, self._window = layer, config.windows[layer]
        self._heads, self._kv_heads, self._head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self._qkv = loader.linear({"q_proj": q, "k_proj": kv, "v_proj": kv}, config.hidden_size, config.qkv_bias)
        self._output = loader.linear({"o_proj": config.hidden_size}, q, config.o_bias)
        self._q_norm = loader.norm("q_norm", config.head_dim) if config.qk_norm else None
        self._k_norm = loader.norm("k_norm", config.head_dim) if config.qk_norm else None

    def __call__(self, x: torch.Tensor, rotation: Rotation, cache: KVCache, batch: Steps) -> torch.Tensor:
        """[n, hidden_size] -> [n, hidden_size]; writes the step's keys and values into the cache."""
        heads, kv_heads = self._heads, self._kv_heads
        qkv = self._qkv(x).view(len(x), heads + 2 * kv_heads, self._head_dim)
        if self._q_norm and self._k_norm:
            q, k, v = qkv[:, :heads], qkv[:, heads : heads + kv_heads], qkv[:, heads + kv_heads :]
            qkv = torch.cat((self._q_norm(q), self._k_norm(k), v), 1)
        return self._output(batch.attend(qkv, rotation, self._layer, self._window, cache))


class MLP:
    """down(silu(gate(x)) * up(x)), arXiv 2002.05202."""

    def __init__(self, config: ModelConfig, loader: _Loader) -> None:
        hidden, inner = config.hidden_size, config.intermediate_size
        self._gate_up = loader.linear({"gate_proj": inner, "up_proj": inner}, hidden, config.mlp_bias)
        self._down = loader.linear({"down_proj": hidden}, inner, config.mlp_bias)

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
        self._input_norm = loader.norm("input_layernorm", config.hidden_size)
        self._post_norm = loader.norm("post_attention_layernorm", config.hidden_size)
        self._attention = Attention(config, index, loader.below("self_attn"))
        self._mlp = MLP(config, loader.below("mlp"))

    def __call__(self, x: torch.Tensor, rotation: Rotation, cache: KVCache, batch: Steps) -> torch.Tensor:
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
        root = _Loader(weights, "", config, device, kernels)
        is_first, self._is_last = shard is None or shard.is_first, shard is None or shard.is_last
        ties = self._is_last and config.tie_word_embeddings
        self._embedding: torch.Tensor | None = None
        if is_first or ties:
            table = weights.read("model.embed_tokens.weight", config.vocab_size, config.hidden_size)
            self._embedding = table.to(device) if is_first else None
        self._rope = Rope(config, context_length, dtype, device)
        layers = range(config.num_layers)
        self._layers = [Layer(config, i, root.below(f"model.layers.{i}"), reduce) for i in layers]
        if self._is_last:
            self._norm = root.norm("model.norm", config.hidden_size)
            self._head = make_head(weights.tied_head(table), device, kernels) if ties else root.head()

    def forward(self, batch: Steps, cache: KVCache, x: torch.Tensor | None = None) -> torch.Tensor:
        """float32 logits [rows that are wanted, vocab_size]; of a part, those of its own tokens.

        A stage takes x [n, hidden_size] of the one before, and returns it for the next, in the compute dtype.
        """
        if x is None:
            assert self._embedding is not None, "a later stage takes what the one before has computed"
            x = F.embedding(batch.tokens, self._embedding)
        rotation = self._rope.at(batch.positions)
        for layer in self._layers:
            x = layer(x, rotation, cache, batch)
        return self._head(self._norm(batch.wanted(x))).float() if self._is_last else x
