"""Keys and values of all sequences, in blocks of a fixed number of tokens (PagedAttention, arXiv 2309.06180)."""

from collections.abc import Sequence

import numpy as np
import torch

from ....quant.checkpoint.config import ModelConfig
from ....quant.kv import KVFormat, vector_bytes


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


def _zeros(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros that on a CPU take memory only once they are written (torch.zeros writes them)."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    memory = np.zeros(shape[0] * shape[1] * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(memory).view(dtype).view(shape)
