"""Keys and values of all sequences, in blocks of a fixed number of tokens (PagedAttention, arXiv 2309.06180)."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from ....core.errors import EngineError
from ....core.machine.memory import available_bytes, own_bytes
from ....quant.checkpoint.config import ModelConfig
from ....quant.kv import KVFormat, vector_bytes
from ..options import EngineOptions

GIB = 1 << 30
_SHARED_GIB = 4.0


class KVCache:
    """A [num_blocks, 2, kv_heads, block_size, elements] tensor per layer and part of the format; keys are [:, 0].

    Without quantization the elements are a vector: head_dim numbers of one head of one token. A block holds each
    head's tokens side by side, so that gathered blocks are one dense [kv_heads, tokens, head_dim].
    Rows are what is gathered: row (block * 2 + key or value) * kv_heads + head is one head of one block.
    """

    def __init__(
        self, config: ModelConfig, num_blocks: int, block_size: int, format: KVFormat, device: torch.device
    ) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self.format, self.device = format, device
        self.kv_heads, self.head_dim = config.num_kv_heads, config.head_dim
        rows = num_blocks * 2 * self.kv_heads
        self._rows = [
            [_zeros((rows, block_size * elements), dtype, device) for elements, dtype in format.parts]
            for _ in range(config.num_layers)
        ]
        self._tokens = [[part.view(rows * block_size, -1) for part in layer] for layer in self._rows]
        self.num_token_rows = rows * block_size
        self._head_rows = torch.arange(2 * self.kv_heads, device=device).view(2, self.kv_heads)

    @property
    def bytes_per_token(self) -> int:
        """Over all layers, scales included."""
        return len(self._rows) * 2 * self.kv_heads * vector_bytes(self.format)

    def slots(self, blocks: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """Where `write` puts tokens that go to places `offsets` [n] of `blocks` [n]."""
        rows = blocks.view(-1, 1, 1) * self._head_rows.numel() + self._head_rows
        return (rows * self.block_size + offsets.view(-1, 1, 1)).flatten()

    def rows(self, blocks: torch.Tensor) -> torch.Tensor:
        """What `gather` reads for block tables [sequences, blocks]."""
        return (self.token_rows(blocks) if self.format.by_vector else self._block_rows(blocks)).flatten()

    def token_rows(self, blocks: torch.Tensor) -> torch.Tensor:
        """Where block tables [sequences, blocks] lie in `tokens`: [sequences, 2, kv_heads, tokens]."""
        rows = self._block_rows(blocks).unsqueeze(-1)
        return (rows * self.block_size + torch.arange(self.block_size, device=blocks.device)).flatten(3)

    def tokens(self, layer: int) -> torch.Tensor:
        """An unquantized layer as [num_token_rows, head_dim]: a row is a key or a value of one head of one token."""
        return self._tokens[layer][0]

    def parts(self, layer: int) -> Sequence[torch.Tensor]:
        """What `format.encode` makes of such rows, [num_token_rows, elements] each."""
        return self._tokens[layer]

    def write(self, layer: int, slots: torch.Tensor, kv: torch.Tensor) -> None:
        """Store keys and values [n, 2, kv_heads, head_dim]."""
        for stored, part in zip(self._tokens[layer], self.format.encode(kv), strict=True):
            stored.index_copy_(0, slots, part)

    def gather(self, layer: int, rows: torch.Tensor, sequences: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [sequences, kv_heads, tokens, head_dim] of `format.read_dtype`, valid until the next call."""
        found = self.format.read(self._rows[layer], rows)
        keys_values = found.view(sequences, 2, self.kv_heads, -1, self.head_dim)
        return keys_values[:, 0], keys_values[:, 1]

    def _block_rows(self, blocks: torch.Tensor) -> torch.Tensor:
        """Rows [sequences, 2, kv_heads, blocks] of block tables [sequences, blocks]."""
        return blocks.view(len(blocks), 1, 1, -1) * self._head_rows.numel() + self._head_rows.unsqueeze(-1)


def block_bytes(config: ModelConfig, block_size: int, format: KVFormat) -> int:
    """Bytes that one block takes over all layers, scales included."""
    return config.num_layers * 2 * config.num_kv_heads * block_size * vector_bytes(format)


def budget_bytes(kv_cache_gib: float | None, device: torch.device, reserved: int, sharing: int = 1) -> int:
    """As told; else 80% of what is free on a GPU, or of what the job has left but for `reserved` bytes.

    Of a job's memory `sharing` processes get equal parts.

    Without a job or cgroup whose memory is this process's own: a quarter of what there is, 4 GiB at most.
    """
    if kv_cache_gib is not None:
        return int(kv_cache_gib * GIB)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * 0.8)
    own = own_bytes()
    if own is None:
        return min(int(_SHARED_GIB * GIB), available_bytes() // 4) // sharing
    return int(max(own // sharing - reserved, 0) * 0.8)


def step_bytes(config: ModelConfig, options: EngineOptions) -> int:
    """About what the largest step needs beside weights and KV cache, float32.

    Twice what the operations of a layer hand on for each token, and four copies of each row of logits.
    """
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    of_token = 2 * (4 * config.hidden_size + 2 * heads + 3 * config.intermediate_size)
    checked = 1 + (options.draft_tokens if options.speculative != "none" else 0)
    logits_rows = min(options.max_running_requests * checked, options.max_batch_tokens)
    return 4 * (options.max_batch_tokens * of_token + 4 * logits_rows * config.vocab_size)


def count_blocks(
    config: ModelConfig,
    context_length: int,
    block_size: int,
    format: KVFormat,
    budget: int,
    beside: int = 0,
    ranks: int = 1,
) -> int:
    """Blocks that `budget` bytes hold, each with so many bytes `beside` it elsewhere.

    Raises EngineError if one sequence of `context_length` tokens does not fit into as many blocks of each of `ranks`.
    """
    size = block_bytes(config, block_size, format) + beside
    needed = -(-context_length // (block_size * ranks))
    if budget // size < needed:
        where = f"the KV cache of {budget / GIB:.2f} GiB"
        if ranks > 1:
            where = f"the KV caches of {ranks} sequence ranks, {budget / GIB:.2f} GiB each,"
        raise EngineError(
            f"{where} hold{'s' * (ranks == 1)} {budget // size * ranks * block_size} tokens, but one sequence may "
            f"have {context_length}: give the job more memory, set --kv-cache-gib to {_round_up(needed * size)} "
            "or more, raise sequence_parallel, or lower context_length"
        )
    return budget // size


def _round_up(size: int) -> float:
    """GiB with two digits, not less than `size` bytes."""
    return math.ceil(size / GIB * 100) / 100


def _zeros(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros that on a CPU take memory only once they are written (torch.zeros writes them)."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    memory = np.zeros(shape[0] * shape[1] * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(memory).view(dtype).view(shape)
