"""The processes that compute one model together, over torch.distributed: gloo between CPUs, NCCL between GPUs.

Within a stage every layer's two shares are summed over its tensor ranks (all-reduce), and its sequence ranks send each
other rows (all-to-all); between stages what they have computed is sent on, and logits come to rank 0. Ranks of a stage
follow one another: rank = (stage * sequence_parallel + sequence rank) * tensor_parallel + tensor rank.

Ranks of one node sum and send through memory that they share, see shared_memory.py. Where tensor ranks span nodes,
shares are summed on each node, then between one rank of each.

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

from .....core.errors import EngineError
from ...options import ParallelOptions
from .rendezvous.key_table import Ask
from .rendezvous.store import RankStore
from .shared_memory import SharedMemory, share_memory
from .tensor_sum import PATIENCE, TensorSum, make_tensor_sum

_MEETING = timedelta(minutes=10)  # until all ranks have come: nodes of a job may start one after the other


@dataclass(frozen=True)
class PendingLogits:
    """Logits, or pooled hidden states, on their way to rank 0."""

    rows: int
    widths: Sequence[int]  # of each rank of the last stage; pooled hidden states are the first one's
    coming: "tuple[torch.Tensor, dist.Work] | None"  # None: through shared memory, or there are none


class Ranks:
    """Communication of this rank with all other ranks of the model."""

    def __init__(self, place: ParallelOptions, device: torch.device, threads: int, ask: Ask) -> None:
        """Meet the others at rank 0's table; this one has `threads`. Raises EngineError if they do not come."""
        self.place, self._device = place, device
        if device.type == "cuda":
            torch.cuda.set_device(place.local_rank)
        self.store = store = RankStore(ask, _MEETING)  # PyTorch does not keep it
        try:
            dist.init_process_group("gloo", store=store, rank=place.rank, world_size=place.ranks, timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"rank {place.rank} of {place.ranks} at {place.rendezvous}: {_brief(error)}") from error
        backend = "nccl" if device.type == "cuda" else "gloo"
        self._tensor_group = self._own_group([list(ranks) for ranks in place.tensor_groups], backend)
        self._sequence_ranks = place.sequence_ranks(place.rank)
        if place.sequence_parallel > 1:
            self._sequence_group = self._own_group(place.sequence_groups, backend)
        self._data_group = dist.new_group(timeout=PATIENCE, backend=backend) if backend == "nccl" else None
        # Of their own on GPUs: what one waits for must not hold up what another sends.
        self._logits_group = dist.new_group(timeout=PATIENCE, backend=backend) if backend == "nccl" else None
        self._leaving: list[tuple[dist.Work, torch.Tensor]] = []
        self._seconds = 0.0
        self._memory, shares = self._share_memory(threads)
        # The sum over the tensor ranks of this stage, in place.
        self.all_reduce = make_tensor_sum(place, self._memory) if shares else TensorSum(None, True, self._tensor_group)

    @property
    def seconds(self) -> float:
        """Seconds spent in communication, waiting included; of what a GPU still does, only the call."""
        return self._seconds + self.all_reduce.seconds + (self._memory.seconds if self._memory else 0.0)

    def abort(self) -> None:
        """Fail all waits in this node's shared memory, because a rank is gone; gloo's fail by themselves."""
        if self._memory:
            self._memory.abort()

    def all_to_all(self, x: torch.Tensor, out: torch.Tensor, sent: Sequence[int], received: Sequence[int]) -> None:
        """Send rows of x to each sequence rank of this stage, as many as `sent` says, and receive theirs into `out`.

        `received` says how many rows come from each. Raises RuntimeError where a rank is gone.
        """
        if self._memory and self._memory.has(self._sequence_ranks):
            parts, found = torch.split(x, list(sent)), torch.split(out, list(received))
            self._memory.all_to_all(parts, found, self._sequence_ranks)
            return
        with self._counted():
            dist.all_to_all_single(out, x, list(received), list(sent), group=self._sequence_group)

    def all_reduce_min(self, value: int) -> int:
        """Return the smallest `value` of all ranks, which must all call it."""
        found = torch.tensor(value)
        dist.all_reduce(found, op=dist.ReduceOp.MIN)
        return int(found)

    def send_to_next_stage(self, x: torch.Tensor) -> None:
        """Send activations x [rows, hidden_size] to the next stage; x may be written again at once."""
        to = self.place.rank + self.place.stage_ranks
        if self._memory and self._memory.carries(x.nbytes, self.place.rank, to):
            self._memory.send(x, to)
        else:
            self._send(x, to, self._data_group)

    def recv_from_previous_stage(self, rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
        """Receive activations [rows, width] of the previous stage. Raises RuntimeError where a rank is gone."""
        x = torch.empty(rows, width, dtype=dtype, device=self._device)
        source = self.place.rank - self.place.stage_ranks
        if self._memory and self._memory.carries(x.nbytes, source, self.place.rank):
            return self._memory.recv(x, source)
        with self._counted():
            dist.recv(x, source, group=self._data_group)
        return x

    def gather_logits(self, logits: torch.Tensor, widths: Sequence[int]) -> torch.Tensor | None:
        """Gather the last stage's logits [rows, own width] at rank 0: there [rows, sum of widths], elsewhere None.

        Only the first sequence rank of the stage has logits.
        """
        if self.place.sequence_rank > 0:
            return None
        head, rows = self.place.last_ranks.start, len(logits)
        if rows == 0:
            return torch.empty(0, sum(widths), device=self._device) if self.place.rank == 0 else None
        if self._memory and self._carries_logits(rows, widths):
            if self.place.rank == 0:
                return self._recv_logits(rows, widths, [logits])
            self._memory.send(logits, 0)
            return None
        if self.place.tensor_parallel > 1:
            logits = self._join(logits, widths, head)
        if head == 0:
            return logits if self.place.rank == 0 else None
        if self.place.rank == head:
            self._send(logits, 0, self._logits_group)
        return None

    def send_pooled(self, pooled: torch.Tensor) -> None:
        """Send pooled hidden states [rows, hidden_size] to rank 0; all ranks of the last stage have the same."""
        head = self.place.last_ranks.start
        if self.place.rank != head or head == 0:
            return
        if self._memory and self._carries_logits(len(pooled), [pooled.shape[1]]):
            self._memory.send(pooled, 0)
        else:
            self._send(pooled, 0, self._logits_group)

    def irecv_logits(self, rows: int, widths: Sequence[int]) -> "PendingLogits":
        """Begin to receive, at rank 0, the logits [rows, sum of widths] of a step whose last stage is elsewhere."""
        if rows == 0 or self._carries_logits(rows, widths):
            return PendingLogits(rows, widths, None)
        logits = torch.empty(rows, sum(widths), device=self._device)
        work = dist.irecv(logits, self.place.last_ranks.start, group=self._logits_group)
        assert work is not None
        return PendingLogits(rows, widths, (logits, work))

    def irecv_pooled(self, rows: int, width: int) -> "PendingLogits":
        """Begin to receive, at rank 0, pooled hidden states [rows, width], which come behind the step's logits."""
        return self.irecv_logits(rows, [width])

    def wait_logits(self, expected: "PendingLogits") -> torch.Tensor:
        """Wait, at rank 0, for float32 [rows, sum of widths]. Raises RuntimeError where a rank is gone."""
        if expected.coming is None:
            return self._recv_logits(expected.rows, expected.widths, [])
        logits, work = expected.coming
        with self._counted():
            work.wait()
        return logits

    def _own_group(self, groups: Sequence[list[int]], backend: str) -> dist.ProcessGroup:
        """Return the process group of this rank; all ranks must make all groups, in the same order."""
        made: list[dist.ProcessGroup] = [dist.new_group(ranks, timeout=PATIENCE, backend=backend) for ranks in groups]
        own = next(index for index, ranks in enumerate(groups) if self.place.rank in ranks)
        return made[own]

    def _carries_logits(self, rows: int, widths: Sequence[int]) -> bool:
        """Whether shared memory does, from every rank of the last stage to rank 0."""
        size = rows * max(widths) * torch.float32.itemsize
        return self._memory is not None and all(self._memory.carries(size, rank, 0) for rank in self.place.last_ranks)

    def _recv_logits(self, rows: int, widths: Sequence[int], parts: list[torch.Tensor]) -> torch.Tensor:
        """Concatenate logits of the last stage's ranks, of which `parts` are here, and receive the others."""
        if rows == 0:
            return torch.empty(0, sum(widths))
        assert self._memory is not None, "see _carries_logits"
        for place in range(len(parts), len(widths)):
            part = torch.empty(rows, widths[place])
            parts.append(self._memory.recv(part, self.place.last_ranks[place]))
        return torch.cat(parts, 1)

    def _share_memory(self, threads: int) -> tuple[SharedMemory | None, bool]:
        """This node's, and whether the ranks of all nodes share theirs: else none does."""
        memory, on_cpus = None, self._device.type == "cpu"
        if self.place.ranks_here > 1 and on_cpus:
            memory = share_memory(self.place, self.store, threads)
        able = on_cpus and (memory is not None or self.place.ranks_here == 1)
        return (memory, True) if self.all_reduce_min(able) else (None, False)

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
        self._seconds += time.perf_counter() - began

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
