"""Keys and values as the KV cache stores them: as computed, in 8 bits, or in 4.

Every key and every value of one head of one token, a vector, is quantized by itself, once, when it is written:

    int8   code * scale, scale = max |x| / 127. Measured, a minimum beside the scale gains nothing here.
    int4   code * scale + minimum, scale = (max - min) / 15. Without a minimum, 4 bits lose four times as much.

Scales and minima are float16. A code follows from its scale as rounded, so a rounded scale costs next to nothing;
minima gain from float16's three bits more than bfloat16's, and keys and values stay far from its limit. The perplexity
shows no difference, and the kernels below want float16.

Keys have a few channels far larger than the others, which leave few of 16 codes to these. int4 therefore stores keys
rotated: a Hadamard matrix spreads every channel over all (QuaRot, arXiv 2404.00456). Queries that meet them are
rotated as well, which leaves the products as they are. It takes no memory; on SmolLM2-135M it about halves what 4 bits
add to the perplexity, as much as a scale for every 32 channels of a key does.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from ..core.sizes import KVCacheDtype, kv_vector_bytes

# The smallest scale that divides: of a vector of nothing but zeros, or nearly.
_TINY = 2.0**-24


class KVFormat(Protocol):
    """How vectors [head_dim] are stored, in one tensor or more: the parts."""

    dtype: torch.dtype  # what is written
    read_dtype: torch.dtype  # what is read
    parts: tuple[tuple[int, torch.dtype], ...]  # elements of each part for one vector
    by_vector: bool  # whether `read` takes the places of vectors, not of rows of them

    def encode(self, kv: torch.Tensor) -> Sequence[torch.Tensor]:
        """The parts, each [n * 2 * kv_heads, elements], of keys and values [n, 2, kv_heads, head_dim]."""

    def read(self, stored: Sequence[torch.Tensor], places: torch.Tensor) -> torch.Tensor:
        """Vectors at `places` of parts [rows, vectors of a row * elements], one after the other, in `read_dtype`.

        The result is valid until the next call; its last dimension is a multiple of head_dim.
        """

    def rotate(self, queries: torch.Tensor) -> torch.Tensor:
        """Multiply queries [..., head_dim] by the matrix that stored keys were multiplied by, if there is one."""


def make_format(kind: KVCacheDtype, head_dim: int, dtype: torch.dtype, device: torch.device) -> KVFormat:
    """The format named `kind` for keys and values that are computed in `dtype`, in heads of `head_dim` channels.

    Raises EngineError for int4 where head_dim is no multiple of 4.
    """
    if kind == "int8":
        return Int8(head_dim, dtype, device)
    if kind == "int4":
        return Int4(head_dim, dtype, device)
    return Plain(head_dim, dtype)


def vector_bytes(format: KVFormat) -> int:
    """Bytes of one stored vector, its scale included: what core.sizes.kv_vector_bytes says without torch."""
    return sum(count * dtype.itemsize for count, dtype in format.parts)


class Plain:
    """Stores keys and values as computed: head_dim numbers of the computed dtype."""

    by_vector = False

    def __init__(self, head_dim: int, dtype: torch.dtype) -> None:
        self.dtype = self.read_dtype = dtype
        self.parts: tuple[tuple[int, torch.dtype], ...] = ((head_dim, dtype),)
        self._found = _Space()

    def encode(self, kv: torch.Tensor) -> Sequence[torch.Tensor]:
        """The part [n * 2 * kv_heads, head_dim] of keys and values [n, 2, kv_heads, head_dim]: a view."""
        return (kv.view(-1, kv.shape[-1]),)

    def read(self, stored: Sequence[torch.Tensor], places: torch.Tensor) -> torch.Tensor:
        """Vectors at `places`, in the computed dtype, valid until the next call."""
        return self._found.select(stored[0], places)

    def rotate(self, queries: torch.Tensor) -> torch.Tensor:
        """Return `queries` unchanged: keys are stored as they are."""
        return queries


class Int8:
    """Stores a vector as int8 codes, -127 to 127, and one float16 scale."""

    by_vector = False

    def __init__(self, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.read_dtype = dtype, _read_dtype(dtype, device)
        self.parts: tuple[tuple[int, torch.dtype], ...] = ((head_dim, torch.int8), (1, torch.float16))
        self._codes, self._scales, self._dense = _Space(), _Space(), _Space()

    def encode(self, kv: torch.Tensor) -> Sequence[torch.Tensor]:
        """Codes [n * 2 * kv_heads, head_dim] and scales [n * 2 * kv_heads, 1] of kv [n, 2, kv_heads, head_dim]."""
        x = kv.reshape(-1, kv.shape[-1]).float()
        largest = torch.linalg.vector_norm(x, torch.inf, dim=-1, keepdim=True)
        scales = largest.mul_(1 / 127).clamp_min_(_TINY).half()
        return (x / scales.float()).round_().clamp_(-127, 127).to(torch.int8), scales

    def read(self, stored: Sequence[torch.Tensor], places: torch.Tensor) -> torch.Tensor:
        """Dequantized vectors at `places`, in `read_dtype`, valid until the next call."""
        codes = self._codes.select(stored[0], places)
        scales = self._scales.select(stored[1], places).float().unsqueeze(-1)
        # Two passes, as a product of int8 and float32 is not vectorised on a CPU.
        dense = self._dense.like(codes, torch.float32).copy_(codes)
        dense.view(*scales.shape[:2], -1).mul_(scales)
        return dense.to(self.read_dtype)

    def rotate(self, queries: torch.Tensor) -> torch.Tensor:
        """Return `queries` unchanged: keys are stored in their own basis."""
        return queries


class Int4:
    """Stores a vector as 4-bit codes, 0 to 15, with a float16 scale and minimum. Keys are rotated.

    A vector is one record: head_dim / 2 bytes of codes, the earlier channel in the lower half, scale, minimum. It is
    the layout of PyTorch's 4-bit embedding tables, whose CPU kernels quantize a record in one pass and find and
    dequantize records in another. Other devices do the same in plain operations.
    """

    def __init__(self, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        """Raises EngineError where head_dim is no multiple of 4."""
        self._record = kv_vector_bytes(head_dim, "int4")
        self.dtype, self.read_dtype = dtype, _read_dtype(dtype, device)
        self.by_vector = device.type == "cpu"
        self.parts: tuple[tuple[int, torch.dtype], ...] = ((self._record, torch.uint8),)
        self._rotation = hadamard(head_dim).to(device)
        self._records, self._starts = _Space(), torch.empty(0, dtype=torch.int64, device=device)

    def encode(self, kv: torch.Tensor) -> Sequence[torch.Tensor]:
        """Records [n * 2 * kv_heads, bytes] of kv [n, 2, kv_heads, head_dim], whose keys are rotated first."""
        x = torch.stack((self.rotate(kv[:, 0]), kv[:, 1].float()), 1).view(-1, kv.shape[-1])
        return (torch.ops.quantized.embedding_bag_4bit_prepack(x) if self.by_vector else pack4(x),)

    def read(self, stored: Sequence[torch.Tensor], places: torch.Tensor) -> torch.Tensor:
        """Dequantized vectors at `places`, keys still rotated, in `read_dtype`."""
        if not self.by_vector:
            return unpack4(self._records.select(stored[0], places).view(-1, self._record)).to(self.read_dtype)
        if len(places) > len(self._starts):
            self._starts = torch.arange(len(places))
        # A bag of one is the row itself.
        dense: torch.Tensor = torch.ops.quantized.embedding_bag_4bit_rowwise_offsets(
            stored[0].view(-1, self._record), places, self._starts[: len(places)]
        )
        return dense

    def rotate(self, queries: torch.Tensor) -> torch.Tensor:
        """Multiply `queries` [..., head_dim] by the Hadamard matrix that stored keys were multiplied by; float32."""
        return queries.float() @ self._rotation


def pack4(x: torch.Tensor) -> torch.Tensor:
    """uint8 records [n, head_dim / 2 + 4] of float32 vectors [n, head_dim]."""
    low, high = x.aminmax(dim=-1, keepdim=True)
    minima = low.half()
    scales = ((high - minima.float()) / 15).clamp_min_(_TINY).half()
    codes = ((x - minima.float()) / scales.float()).round_().clamp_(0, 15).to(torch.uint8)
    pairs = codes[:, 0::2] | codes[:, 1::2] << 4
    return torch.cat((pairs, torch.cat((scales, minima), 1).view(torch.uint8)), 1)


def unpack4(records: torch.Tensor) -> torch.Tensor:
    """float32 vectors [n, head_dim] of records."""
    pairs, tail = records[:, :-4], records[:, -4:].contiguous().view(torch.float16).float()
    codes = torch.stack((pairs & 15, pairs >> 4), -1).flatten(1)
    return torch.addcmul(tail[:, 1:], codes.float(), tail[:, :1])


def hadamard(size: int) -> torch.Tensor:
    """An orthogonal symmetric float32 [size, size]: Sylvester's matrix, or blocks of it if size is no power of two."""
    block = torch.ones(1, 1)
    while size % (2 * len(block)) == 0:
        block = torch.cat((torch.cat((block, block), 1), torch.cat((block, -block), 1)))
    return torch.kron(torch.eye(size // len(block)), block * len(block) ** -0.5)


class _Space:
    """Memory for results of many sizes: an allocator would map and clear fresh pages for every layer."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def like(self, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Room for as many as [n, width] `rows`; their width is always the same."""
        if self._memory.shape[1:] != rows.shape[1:] or len(self._memory) < len(rows):
            self._memory = rows.new_empty(rows.shape, dtype=dtype)
        return self._memory[: len(rows)]

    def select(self, source: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """source[rows]"""
        if self._memory.shape[1:] != source.shape[1:] or len(self._memory) < len(rows):
            self._memory = source.new_empty(len(rows), *source.shape[1:])
        return torch.index_select(source, 0, rows, out=self._memory[: len(rows)])


def _read_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Attention to few queries is as fast in float32 on a CPU, and rounding to half precision costs a pass."""
    return torch.float32 if device.type == "cpu" else dtype
