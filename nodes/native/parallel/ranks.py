"""The processes that compute one model together, over torch.distributed: gloo between CPUs, NCCL between GPUs.

Within a stage every layer's two shares are summed over its tensor ranks (all-reduce), and its sequence ranks send each
other rows (all-to-all); between stages what they have computed is sent on, and logits come to rank 0. Ranks of a stage
follow one another: rank = (stage * sequence_parallel + sequence rank) * tensor_parallel + tensor rank.

Nobody waits for a rank that is to receive: what is sent lies in memory of its own until it has gone, and rank 0 has
asked for a step's logits before it begins the next. So each stage can compute a step of its own.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ....core.errors import EngineError
from ..options import ParallelOptions

_MEETING = timedelta(minutes=10)  # until all ranks have come: nodes of a job may start one after the other
# Longer than any step. Whether a rank is alive is for the lifeline to say, not for a collective's patience.
_PATIENCE = timedelta(days=365)


@dataclass(frozen=True)
class Expected:
    """Logits on their way to rank 0."""

    logits: torch.Tensor
    work: "dist.Work | None"  # None: there are none


class Ranks:
    """This process's view of the others."""

    def __init__(self, place: ParallelOptions, device: torch.device) -> None:
        """Meet the others. Raises EngineError if they do not come."""
        self.place, self._device = place, device
        if device.type == "cuda":
            torch.cuda.set_device(place.local_rank)
        assert place.rendezvous is not None, "ranks have a place to meet"
        host, _, port = place.rendezvous.rpartition(":")
        try:
            store = TCPStore(host, int(port), place.ranks, place.rank == 0, timeout=_MEETING)
            dist.init_process_group("gloo", store=store, rank=place.rank, world_size=place.ranks, timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"rank {place.rank} of {place.ranks} at {place.rendezvous}: {_brief(error)}") from error
        self.store = store
        backend = "nccl" if device.type == "cuda" else "gloo"
        tensor, stage = place.tensor_parallel, place.stage_ranks
        alike = [range(first, first + tensor) for first in range(0, place.ranks, tensor)]
        groups = [dist.new_group(list(ranks), timeout=_PATIENCE, backend=backend) for ranks in alike]
        self._tensor_group = groups[place.rank // tensor]
        self._sequence_group = None
        if place.sequence_parallel > 1:
            firsts = [first for first in range(place.ranks) if first % stage < tensor]
            found = [list(range(first, first + stage, tensor)) for first in firsts]
            others = [dist.new_group(ranks, timeout=_PATIENCE, backend=backend) for ranks in found]
            self._sequence_group = others[place.stage * tensor + place.tensor_rank]
        self._data_group = dist.new_group(timeout=_PATIENCE, backend=backend) if backend == "nccl" else None
        # Of their own on GPUs: what one waits for must not hold up what another sends.
        self._logits_group = dist.new_group(timeout=_PATIENCE, backend=backend) if backend == "nccl" else None
        self._leaving: list[tuple[dist.Work, torch.Tensor]] = []
        self.seconds = 0.0  # spent with others, waiting for them included; of what a GPU still does, only the call

    def reduce(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of x over the tensor ranks of this stage, in place."""
        with self._counted():
            dist.all_reduce(x, group=self._tensor_group)
        return x

    def exchange(self, x: torch.Tensor, out: torch.Tensor, sent: Sequence[int], received: Sequence[int]) -> None:
        """Rows of x to each sequence rank of this stage, as many as `sent` says, and theirs into `out`."""
        with self._counted():
            dist.all_to_all_single(out, x, list(received), list(sent), group=self._sequence_group)

    def least(self, value: int) -> int:
        """The smallest `value` of all ranks."""
        found = torch.tensor(value)
        dist.all_reduce(found, op=dist.ReduceOp.MIN)
        return int(found)

    def hand_on(self, x: torch.Tensor) -> None:
        """Send what this stage has computed to the next."""
        self._send(x, self.place.rank + self.place.stage_ranks, self._data_group)

    def take_over(self, rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
        """[rows, width] of the stage before."""
        x = torch.empty(rows, width, dtype=dtype, device=self._device)
        with self._counted():
            dist.recv(x, self.place.rank - self.place.stage_ranks, group=self._data_group)
        return x

    def deliver(self, logits: torch.Tensor, widths: Sequence[int]) -> torch.Tensor | None:
        """The last stage's logits [rows, own width], to rank 0; all [rows, sum of widths] of them where this is it.

        Only its first sequence rank has them.
        """
        if self.place.sequence_rank > 0:
            return None
        head = self.place.ranks - self.place.stage_ranks  # the last stage's first rank
        if self.place.tensor_parallel > 1:
            logits = self._join(logits, widths, head)
        if head == 0:
            return logits if self.place.rank == 0 else None
        if self.place.rank == head and len(logits):
            self._send(logits, 0, self._logits_group)
        return None

    def expect(self, rows: int, width: int) -> "Expected":
        """Rank 0: ask for the logits [rows, width] of a step whose last stage is elsewhere."""
        logits = torch.empty(rows, width, device=self._device)
        head = self.place.ranks - self.place.stage_ranks
        return Expected(logits, dist.irecv(logits, head, group=self._logits_group) if rows else None)

    def receive(self, expected: "Expected") -> torch.Tensor:
        """Rank 0: what was asked for, once it is there."""
        with self._counted():
            if expected.work is not None:
                expected.work.wait()
        return expected.logits

    def _send(self, x: torch.Tensor, to: int, group: dist.ProcessGroup | None) -> None:
        self._leaving = [(work, sent) for work, sent in self._leaving if not work.is_completed()]
        copy = x.clone(memory_format=torch.contiguous_format)  # x is written again by the next step
        work = dist.isend(copy, to, group=group)
        assert work is not None
        self._leaving.append((work, copy))

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
        dist.gather(padded, found, head, group=self._tensor_group)
        if found is None:
            return padded
        return torch.cat([part[:, :width] for part, width in zip(found, widths, strict=True)], 1)


def _brief(error: Exception) -> str:
    """The first line of what torch.distributed says."""
    return str(error).strip().splitlines()[0]
