"""The ranks of `slurminfer bench comm`: how they meet, and the operations that they do together."""

import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from ....core.errors import CommunicationError, EngineError
from ....core.files import read_private, write_atomic
from ....core.net.address import interface_env, node_address
from ....core.site.communication import Backend, Operation

if TYPE_CHECKING:  # the command takes the struct from here, and needs no PyTorch
    import torch

    from ....nodes.native.model.parallel.rendezvous.store import RankStore

SECRET = "secret"  # the file that lets ranks know each other
_RENDEZVOUS = "rendezvous"
_INTERFACES: dict[Backend, str] = {"gloo": "GLOO_SOCKET_IFNAME", "nccl": "NCCL_SOCKET_IFNAME"}
_POLL_S = 0.05
_ITEM = 4  # bytes of a float32

Call = Callable[[], object]


class CommTask(msgspec.Struct, frozen=True, kw_only=True):
    """What the ranks measure."""

    ranks: int
    sizes: tuple[int, ...]  # bytes, rising, two or more
    backend: Literal["auto", "gloo", "nccl"] = "auto"  # auto: nccl where every rank has a GPU
    seconds: float = 5.0  # that each operation may take, about
    timeout_s: float = 120.0  # for all to meet, and for one of them to answer later on

    @property
    def limit_s(self) -> float:
        """By when it is over, one way or the other."""
        return 2 * self.timeout_s + len(get_args(Operation)) * self.seconds


class Group:
    """The ranks as one of them sees them. What it does raises RuntimeError where another rank is lost."""

    def __init__(self, task: CommTask, folder: Path, rank: int, local_rank: int) -> None:
        """Meet the others. Raises CommunicationError if one of them does not come."""
        import torch

        self.rank, self.ranks = rank, task.ranks
        os.environ.update(interface_env(node_address()))
        self._turn = 0
        self._meeting = _Leader(task, folder) if rank == 0 else _Follower(task, folder, rank)
        self._store = self._meeting.store
        self.hosts = _wait_for_all(self._store, task, rank)
        self.backend = self._agree_on_backend(task)
        self.device = _own_gpu(rank, local_rank) if self.backend == "nccl" else torch.device("cpu")
        self._join(timedelta(seconds=task.timeout_s))
        self._signal = self._zeros(1)

    @property
    def gpu(self) -> str | None:
        """The GPU's name; None where tensors are in memory."""
        import torch

        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None

    @property
    def interface(self) -> str | None:
        """The network interface that the backend was told to use; None: it found one itself."""
        told = os.environ.get(_INTERFACES[self.backend])
        return told and told.removeprefix("=")  # NCCL's way to say that it is no prefix

    def broadcast(self, value: int) -> int:
        """Rank 0's value, on every rank."""
        self._turn += 1
        key = f"turn/{self._turn}"
        if self.rank:
            return int(self._store.get(key))
        self._store.set(key, str(int(value)))
        return value

    def barrier(self) -> None:
        """Return when all ranks have called it."""
        import torch.distributed as dist

        dist.all_reduce(self._signal)
        self._finish()

    def time(self, call: Call, count: int) -> float:
        """Seconds of a call, of `count` in a row."""
        self._finish()
        began = time.perf_counter()
        for _ in range(count):
            call()
        self._finish()
        return (time.perf_counter() - began) / count

    def prepare(self, operation: Operation, size: int) -> tuple[int, Call]:
        """The operation on about `size` bytes, and on how many exactly. `send_recv` is there and back."""
        import torch.distributed as dist

        elements = max(1, size // _ITEM)
        if operation == "all_gather":
            piece = self._zeros(-(-elements // self.ranks))
            whole = self._zeros(len(piece) * self.ranks)
            # Until PyTorch 2.12 it had the other name.
            gather = dist.all_gather_single if hasattr(dist, "all_gather_single") else dist.all_gather_into_tensor
            return whole.nbytes, lambda: gather(whole, piece)
        tensor = self._zeros(elements)
        return tensor.nbytes, self._ping_pong(tensor) if operation == "send_recv" else lambda: dist.all_reduce(tensor)

    def shutdown(self) -> None:
        """End the group when all ranks have called it."""
        import torch.distributed as dist

        self.barrier()
        dist.destroy_process_group()
        self._meeting.leave()

    def _agree_on_backend(self, task: CommTask) -> Backend:
        known: tuple[Backend, ...] = get_args(Backend)
        wanted = _best_backend(task.ranks // len(self.hosts)) if task.backend == "auto" else task.backend
        return known[self.broadcast(known.index(wanted))]

    def _join(self, timeout: timedelta) -> None:
        import torch.distributed as dist

        dist.init_process_group(
            self.backend, store=self._store, rank=self.rank, world_size=self.ranks,
            timeout=timeout, device_id=self.device if self.device.type == "cuda" else None,
        )  # fmt: skip

    def _ping_pong(self, tensor: "torch.Tensor") -> Call:
        """Between the first rank and the last, which are on different nodes if there are several."""
        import torch.distributed as dist

        last = self.ranks - 1
        if self.rank == 0:
            return lambda: (dist.send(tensor, last), dist.recv(tensor, last))
        if self.rank == last:
            return lambda: (dist.recv(tensor, 0), dist.send(tensor, 0))
        return lambda: None

    def _zeros(self, elements: int) -> "torch.Tensor":
        import torch

        return torch.zeros(elements, device=self.device)

    def _finish(self) -> None:
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize()


class _Leader:
    """Rank 0's place in the meeting: it listens, at one address, and holds the store."""

    def __init__(self, task: CommTask, folder: Path) -> None:
        from ....nodes.native.model.parallel.rendezvous.failure_detector import FailureDetector
        from ....nodes.native.model.parallel.rendezvous.store import RankStore
        from ....nodes.native.model.parallel.rendezvous.timeouts import Timeouts

        self._others = range(1, task.ranks)
        # No short limits here: the command watches the processes, and says which rank has failed.
        timeouts = Timeouts(meeting_s=task.timeout_s, loading_s=task.limit_s)
        address, failures = f"{node_address()}:0", queue.SimpleQueue[EngineError]()
        self._detector = FailureDetector(
            address, len(self._others), _secret(folder), queue.SimpleQueue(), failures.put, timeouts
        )
        self.store = RankStore(self._detector.ask, timedelta(seconds=task.timeout_s))
        write_atomic(folder / _RENDEZVOUS, self._detector.address)

    def leave(self) -> None:
        """Wait until all other ranks are done, then end the connections."""
        self.store.wait([f"left/{other}" for other in self._others])
        self._detector.close()


class _Follower:
    """Another rank's place in the meeting. It waits for longer than rank 0, which knows who is late."""

    def __init__(self, task: CommTask, folder: Path, rank: int) -> None:
        from ....nodes.native.model.parallel.rendezvous.lifeline import Lifeline
        from ....nodes.native.model.parallel.rendezvous.store import RankStore
        from ....nodes.native.model.parallel.rendezvous.timeouts import Timeouts

        self._rank, self._ended = rank, threading.Event()
        self._timeout_s = 2 * task.timeout_s
        timeouts, place = Timeouts(meeting_s=self._timeout_s), _rendezvous(folder, task.timeout_s)
        try:
            self._lifeline = Lifeline(
                place, rank, _secret(folder), queue.SimpleQueue(), timeouts, lambda _: self._ended.set()
            )
        except EngineError as error:
            raise CommunicationError(f"{socket.gethostname()}: {error}") from error
        self.store = RankStore(self._lifeline.ask, timedelta(seconds=self._timeout_s))

    def leave(self) -> None:
        """Return when rank 0 needs this rank no more."""
        self.store.set(f"left/{self._rank}", "")
        self._ended.wait(self._timeout_s)


def _secret(folder: Path) -> str:
    """Raises CommunicationError, RunDirectoryError."""
    secret = read_private(folder / SECRET)
    if secret is None:
        raise CommunicationError(f"no secret by which ranks know each other in {folder / SECRET}")
    return secret


def _rendezvous(folder: Path, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    while (place := read_private(folder / _RENDEZVOUS)) is None:
        if time.monotonic() > deadline:
            raise CommunicationError(f"rank 0 has not come within {timeout_s:g} s")
        time.sleep(_POLL_S)
    return place


def _wait_for_all(store: "RankStore", task: CommTask, rank: int) -> tuple[str, ...]:
    """The hosts in the order of their ranks, when all ranks have come. Raises CommunicationError on rank 0."""
    keys = [f"host/{other}" for other in range(task.ranks)]
    store.set(keys[rank], socket.gethostname())
    deadline = time.monotonic() + task.timeout_s
    while rank == 0 and not store.check(keys):
        if time.monotonic() > deadline:
            late = ", ".join(str(other) for other, key in enumerate(keys) if not store.check([key]))
            raise CommunicationError(f"of {task.ranks} ranks, these have not come within {task.timeout_s:g} s: {late}")
        time.sleep(_POLL_S)
    return tuple(dict.fromkeys(store.get(key).decode() for key in keys))


def _best_backend(ranks_per_node: int) -> Backend:
    import torch

    return "nccl" if torch.cuda.is_available() and torch.cuda.device_count() >= ranks_per_node else "gloo"


def _own_gpu(rank: int, local_rank: int) -> "torch.device":
    """This rank's GPU, which becomes the current one. Where Slurm shows each task one GPU, that is number 0."""
    import torch

    if not torch.cuda.is_available():
        raise CommunicationError(f"rank {rank} on {socket.gethostname()}: backend nccl, but no GPU is to be seen")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
