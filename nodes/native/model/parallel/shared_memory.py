"""Memory that the ranks of one node share: they sum and send through it in microseconds, where sockets take hundreds.

It has no name. The node's first rank makes it and hands it on to the others, which it starts (inherited.py), and when
the last of them has ended it is gone, whatever it was that ended them.
"""

import ctypes
import mmap
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .....core.errors import UntrustedFileError
from ...options import ParallelOptions
from ..fused import library
from ..fused.structs import LinkStruct, SumStruct, WaitsStruct, WordStruct
from .rendezvous.inherited import inherited_memory
from .rendezvous.store import RankStore

_LINE = ctypes.sizeof(WordStruct)  # bytes, of a cache line
_PAGE = 4096
_SUM_SLOT = 1 << 16  # numbers: what all ranks of a node have in two of them stays in their cores' caches
_LINK_SLOT = 1 << 25  # bytes; memory is taken only where something was written
_SPIN_NS = 100_000  # of a rank with CPUs of its own: other ranks are some heads and neurons behind
_ALONE = 1 << 16  # numbers that one thread sums before others have woken up
_TOKEN = slice(_LINE, _LINE + 16)  # bytes that tell it from any other memory


class SharedMemory:
    """One rank's view of its node's shared memory.

    Every transfer raises RuntimeError where another rank is gone, which `abort` makes known.
    """

    def __init__(self, place: ParallelOptions, store: RankStore, threads: int) -> None:
        """Meet the other ranks of this node.

        Raises OSError, UntrustedFileError and library.CompileError where there can be no such memory, EngineError where
        the library that was compiled has other structs than structs.py.
        """
        self._place, here = place, _here(place)
        spins = _have_cpus_of_their_own(here, place.rank, store, threads)
        areas = _Areas(place)
        self._memory, path = _meet(here, place.rank, store, areas.size)
        self._library = library.load(path)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._waits = WaitsStruct(base, _SPIN_NS if spins else 0, 0.0, 0)
        self._links = {pair: self._link(base + at) for pair, at in areas.links.items() if place.rank in pair}
        self._sum = next((self._part(base + at, ranks) for ranks, at in areas.sums if place.rank in ranks), None)

    @property
    def seconds(self) -> float:
        """Seconds spent in transfers, waiting for others included."""
        return float(self._waits.seconds)

    @property
    def sums(self) -> bool:
        """Whether other tensor ranks of this stage are on this node."""
        return self._sum is not None

    @property
    def sum_address(self) -> int:
        """Address of the SumStruct by which the library itself sums over tensor ranks here; `check` follows."""
        assert self._sum is not None, "no other tensor rank of this stage is on this node"
        return ctypes.addressof(self._sum)

    def all_reduce(self, x: torch.Tensor) -> None:
        """Sum x [n], float32, in place over this stage's tensor ranks here: the same bits on all of them."""
        assert self._sum is not None, "there are others"
        self._sum_over(x, self._sum.ranks)

    def broadcast(self, x: torch.Tensor) -> None:
        """Overwrite x, float32, with that of this stage's first tensor rank on this node."""
        self._sum_over(x, 1)

    def carries(self, size: int, source: int, to: int) -> bool:
        """Whether messages of `size` bytes go this way, from a rank to one of the next stage or to rank 0."""
        return size <= _LINK_SLOT and self.has((source, to))

    def has(self, ranks: Sequence[int]) -> bool:
        """Whether all of `ranks` are on this node."""
        here = _here(self._place)
        return all(rank in here for rank in ranks)

    def send(self, x: torch.Tensor, to: int) -> None:
        """Send x to rank `to`; x may be written again at once."""
        link = self._links[self._place.rank, to]
        x = x.contiguous()
        self._library.post(ctypes.addressof(link), x.data_ptr(), x.nbytes)
        self.check()

    def recv(self, x: torch.Tensor, source: int) -> torch.Tensor:
        """Receive the next message of rank `source` into x."""
        link = self._links[source, self._place.rank]
        self._library.fetch(ctypes.addressof(link), x.data_ptr(), x.nbytes)
        self.check()
        return x

    def all_to_all(self, parts: Sequence[torch.Tensor], found: Sequence[torch.Tensor], ranks: Sequence[int]) -> None:
        """Send each of `ranks`, all on this node, one of `parts`, and take theirs into `found`; all of them call it."""
        own = ranks.index(self._place.rank)
        found[own].copy_(parts[own])
        others = [place for place in range(len(ranks)) if place != own]
        leaving, coming = ({i: _split(tensors[i]) for i in others} for tensors in (parts, found))
        # Piece by piece: who is sent more than a slot holds must fetch meanwhile.
        for turn in range(max(map(len, (*leaving.values(), *coming.values())))):
            for i in others:
                if turn < len(leaving[i]):
                    self.send(leaving[i][turn], ranks[i])
            for i in others:
                if turn < len(coming[i]):
                    self.recv(coming[i][turn], ranks[i])

    def abort(self) -> None:
        """End all waits on this node, in any thread or process, because a rank is gone."""
        self._memory[0] = 1

    def check(self) -> None:
        """Raises RuntimeError where a wait has been given up."""
        if self._waits.lost:
            raise RuntimeError("another rank of this node is gone")

    def _sum_over(self, x: torch.Tensor, ranks: int) -> None:
        threads = torch.get_num_threads() if x.numel() > _ALONE else 1
        self._library.sum_over(self.sum_address, x.data_ptr(), x.numel(), ranks, threads)
        self.check()

    def _part(self, at: int, ranks: range) -> SumStruct:
        slots = at + _pages(len(ranks) * _LINE)
        own = ranks.index(self._place.rank)
        return SumStruct(ctypes.pointer(self._waits), at, slots, _SUM_SLOT, own, len(ranks), 0, 0)

    def _link(self, at: int) -> LinkStruct:
        depth = self._place.pipeline_parallel
        return LinkStruct(ctypes.pointer(self._waits), at, at + _LINE, at + _PAGE, _LINK_SLOT, depth, 0)


def share_memory(place: ParallelOptions, store: RankStore, threads: int) -> SharedMemory | None:
    """Share memory with this node's other ranks, each with `threads`; None where that cannot be, with why on stderr."""
    try:
        return SharedMemory(place, store, threads)
    except (OSError, UntrustedFileError, library.CompileError) as error:
        print(f"slower without shared memory: {error}", file=sys.stderr, flush=True)
        return None


class _Areas:
    """Where what lies, after a page that says whether a rank is gone and whose memory it is."""

    def __init__(self, place: ParallelOptions) -> None:
        here, stage = _here(place), place.stage_ranks
        self.size = _PAGE
        together = [range(max(r.start, here.start), min(r.stop, here.stop)) for r in place.tensor_groups]
        self.sums = [
            (ranks, self._take(len(ranks) * _LINE, 2 * len(ranks) * _SUM_SLOT * torch.float32.itemsize))
            for ranks in together
            if len(ranks) > 1
        ]
        next_stage = {(rank, rank + stage) for rank in here if rank + stage in here}
        logits = {(rank, 0) for rank in place.last_ranks if rank in here and 0 in here and rank > 0}
        rows = {(one, other) for one in here for other in place.sequence_ranks(one) if other in here and one != other}
        pairs = sorted(next_stage | logits | rows)
        self.links = {pair: self._take(2 * _LINE, place.pipeline_parallel * _LINK_SLOT) for pair in pairs}

    def _take(self, words: int, slots: int) -> int:
        at = self.size
        self.size += _pages(words) + _pages(slots)
        return at


def _split(x: torch.Tensor) -> Sequence[torch.Tensor]:
    """Split the bytes of x into messages; none for an empty x."""
    return torch.split(x.view(-1).view(torch.uint8), _LINK_SLOT) if x.numel() else ()


def _here(place: ParallelOptions) -> range:
    """The ranks of this node."""
    first = place.node_rank * place.ranks_here
    return range(first, first + place.ranks_here)


def _meet(here: range, rank: int, store: RankStore, size: int) -> tuple[mmap.mmap, Path]:
    """Map the memory that all ranks of this node share, and find the library.

    Each rank finds both itself. What they tell each other is only a token in the memory and the library's checksum, so
    that none uses others than the first. Raises OSError, library.CompileError.
    """
    key = f"memory/{here.start}"
    if rank == here.start:
        try:
            path, memory = _compiled(), _make(size)
        except (OSError, library.CompileError):
            store.set(key, "")
            raise
        store.set(key, f"{memory[_TOKEN].hex()} {library.checksum(path)}")
        return memory, path
    said = store.get(key).decode()
    if not said:
        raise OSError("the node's first rank has none")
    token, checksum = said.split()
    found = library.place()
    if found is None or library.checksum(found) != checksum:
        raise OSError("the library of the node's first rank is not to be found here")
    memory = mmap.mmap(inherited_memory(), size)
    if memory[_TOKEN].hex() != token:
        raise OSError("this memory is not what the node's first rank shares")
    return memory, found


def _compiled() -> Path:
    path = library.place()
    if path is None:
        raise OSError("no g++, or a CPU without AVX2")
    if not library.is_whole(path):
        library.compile_to(path)
    return path


def _make(size: int) -> mmap.mmap:
    file = inherited_memory()
    os.ftruncate(file, size)
    memory = mmap.mmap(file, size)
    memory[_TOKEN] = secrets.token_bytes(_TOKEN.stop - _TOKEN.start)
    return memory


def _have_cpus_of_their_own(here: range, rank: int, store: RankStore, threads: int) -> bool:
    """Whether each thread of this node's ranks has a CPU: who waits then keeps nobody from computing."""
    cpus = " ".join(map(str, os.sched_getaffinity(0)))
    store.set(f"cpus/{rank}", f"{threads} {cpus}")
    told = [store.get(f"cpus/{other}").decode().split() for other in here]
    return sum(int(count) for count, *_ in told) <= len({cpu for _, *own in told for cpu in own})


def _pages(size: int) -> int:
    """Bytes of the pages that hold `size` bytes."""
    return -(-size // _PAGE) * _PAGE
