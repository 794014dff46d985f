"""The processes that compute one model together, over torch.distributed: gloo between CPUs, NCCL between GPUs.

Rank 0 schedules. Once a step it broadcasts the step's chunks; the others never decide. Within a stage every layer's two
shares are summed over its ranks (all-reduce), between stages what they have computed is sent on, and logits come to
rank 0. Ranks of one stage follow one another: rank = stage * tensor_parallel + tensor rank.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ....core.errors import EngineError
from ..step import Chunk

_MEETING = timedelta(minutes=10)  # until all ranks have come: nodes of a job may start one after the other
# Longer than any step. Whether a rank is alive is for the lifeline to say, not for a collective's patience.
_PATIENCE = timedelta(days=365)
_MESSAGE_BYTES = 1 << 15  # of a step that needs one broadcast only
_LENGTH_BYTES = 8


class _Piece(msgspec.Struct, array_like=True, frozen=True):
    """A `Chunk` on its way."""

    tokens: list[int]
    start: int
    blocks: list[int]
    num_logits: int


@dataclass(frozen=True, kw_only=True)
class Place:
    """One rank among all. `rendezvous` is HOST:PORT where rank 0 listens."""

    rank: int
    local_rank: int  # on its node
    tensor_parallel: int
    pipeline_parallel: int
    rendezvous: str

    @property
    def world(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel


class Ranks:
    """This process's view of the others."""

    def __init__(self, place: Place, device: torch.device) -> None:
        """Meet the others. Raises EngineError if they do not come."""
        self.place, self._device = place, device
        if device.type == "cuda":
            torch.cuda.set_device(place.local_rank)
        host, _, port = place.rendezvous.rpartition(":")
        try:
            store = TCPStore(host, int(port), place.world, place.rank == 0, timeout=_MEETING)
            dist.init_process_group("gloo", store=store, rank=place.rank, world_size=place.world, timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"rank {place.rank} of {place.world} at {place.rendezvous}: {_brief(error)}") from error
        self.store = store
        backend = "nccl" if device.type == "cuda" else "gloo"
        tensor = place.tensor_parallel
        stages = [range(first, first + tensor) for first in range(0, place.world, tensor)]
        groups = [dist.new_group(list(stage), timeout=_PATIENCE, backend=backend) for stage in stages]
        self._stage_group = groups[place.rank // tensor]
        self._data_group = dist.new_group(timeout=_PATIENCE, backend=backend) if backend == "nccl" else None
        self._message = torch.empty(_MESSAGE_BYTES, dtype=torch.uint8)
        self.seconds = 0.0  # spent with others, waiting for them included; of what a GPU still does, only the call

    def reduce(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of x over the ranks of this stage, in place."""
        with self._counted():
            dist.all_reduce(x, group=self._stage_group)
        return x

    def least(self, value: int) -> int:
        """The smallest `value` of all ranks."""
        found = torch.tensor(value)
        dist.all_reduce(found, op=dist.ReduceOp.MIN)
        return int(found)

    def announce(self, chunks: Sequence[Chunk]) -> None:
        """Rank 0: tell the others what to compute."""
        pieces = [_Piece(list(c.tokens), c.start, list(c.blocks), c.num_logits) for c in chunks]
        content = msgspec.msgpack.encode(pieces)
        self._message[:_LENGTH_BYTES] = _bytes(len(content).to_bytes(_LENGTH_BYTES, "little"))
        first = content[: _MESSAGE_BYTES - _LENGTH_BYTES]
        self._message[_LENGTH_BYTES : _LENGTH_BYTES + len(first)] = _bytes(first)
        with self._counted():
            dist.broadcast(self._message, 0)
            if len(content) > len(first):
                dist.broadcast(_bytes(content[len(first) :]), 0)

    def hear(self) -> list[Chunk]:
        """The other ranks: what to compute next."""
        dist.broadcast(self._message, 0)
        length = int.from_bytes(self._message[:_LENGTH_BYTES].numpy().tobytes(), "little")
        content = self._message[_LENGTH_BYTES : _LENGTH_BYTES + length].numpy().tobytes()
        if length > len(content):
            rest = torch.empty(length - len(content), dtype=torch.uint8)
            dist.broadcast(rest, 0)
            content += rest.numpy().tobytes()
        pieces = msgspec.msgpack.decode(content, type=list[_Piece])
        return [Chunk(piece.tokens, piece.start, piece.blocks, piece.num_logits) for piece in pieces]

    def hand_on(self, x: torch.Tensor) -> None:
        """Send what this stage has computed to the next."""
        with self._counted():
            dist.send(x.contiguous(), self.place.rank + self.place.tensor_parallel, group=self._data_group)

    def take_over(self, rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
        """[rows, width] of the stage before."""
        x = torch.empty(rows, width, dtype=dtype, device=self._device)
        with self._counted():
            dist.recv(x, self.place.rank - self.place.tensor_parallel, group=self._data_group)
        return x

    def collect(self, logits: torch.Tensor | None, rows: int, widths: Sequence[int]) -> torch.Tensor | None:
        """Logits [rows, sum of widths] at rank 0, out of the last stage's [rows, own width]; None at other ranks."""
        with self._counted():
            return self._collect(logits, rows, widths)

    def _collect(self, logits: torch.Tensor | None, rows: int, widths: Sequence[int]) -> torch.Tensor | None:
        rank, tensor = self.place.rank, self.place.tensor_parallel
        head = self.place.world - tensor  # the last stage's first rank
        if logits is not None and tensor > 1:
            logits = self._join(logits, widths, head)
        if head == 0 or rows == 0:
            return logits if rank == 0 else None
        if rank == head:
            assert logits is not None
            dist.send(logits.contiguous(), 0, group=self._data_group)
        if rank:
            return None
        whole = torch.empty(rows, sum(widths), device=self._device)
        dist.recv(whole, head, group=self._data_group)
        return whole

    @contextmanager
    def _counted(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began

    def _join(self, logits: torch.Tensor, widths: Sequence[int], head: int) -> torch.Tensor:
        """Side by side, at rank `head`; shares are padded to one width, which collectives want."""
        padded = logits.new_zeros(len(logits), max(widths))
        padded[:, : logits.shape[1]] = logits
        found = [torch.empty_like(padded) for _ in widths] if self.place.rank == head else None
        dist.gather(padded, found, head, group=self._stage_group)
        if found is None:
            return padded
        return torch.cat([part[:, :width] for part, width in zip(found, widths, strict=True)], 1)


def _bytes(content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _brief(error: Exception) -> str:
    """The first line of what torch.distributed says."""
    return str(error).strip().splitlines()[0]
