"""How long messages between nodes take: what was measured, and the line through it.

Models of communication: a message of n bytes takes `alpha + beta * n`, where alpha is a latency in seconds and beta the
inverse of a bandwidth, in seconds per byte. A ring of p ranks does an all-reduce of n bytes in 2(p-1) steps that carry
2(p-1)/p * n bytes past every rank, and an all-gather of n bytes in all in half as many (Patarasuk and Yuan, "Bandwidth
optimal all-reduce algorithms for clusters of workstations", 2009).
"""

from typing import Literal

import msgspec

Operation = Literal["all_reduce", "all_gather", "send_recv"]
Backend = Literal["gloo", "nccl"]
VERSION = 1


class CommPoint(msgspec.Struct, frozen=True):
    """One size: of the tensor that is reduced, of all that is gathered, of the message."""

    bytes: int
    seconds: float  # median; of a message one way


class CommFit(msgspec.Struct, frozen=True, kw_only=True):
    """One operation among so many ranks as the profile says: what was measured, and the line through it."""

    operation: Operation
    points: tuple[CommPoint, ...]
    alpha_s: float
    beta_s_per_byte: float
    error: float  # root mean square of (line - measured) / measured
    worst_error: float  # the largest of them, without its sign
    step_alpha_s: float  # of one step of the ring; of the message, where there is no ring
    step_beta_s_per_byte: float

    def seconds(self, size: float) -> float:
        """What the line says for `size` bytes, among the same number of ranks."""
        return self.alpha_s + self.beta_s_per_byte * size


class CommProfile(msgspec.Struct, frozen=True, kw_only=True):
    """How some nodes communicate."""

    version: int = VERSION
    date: str  # ISO 8601
    partition: str | None  # None: processes of one machine, without Slurm
    hosts: tuple[str, ...]  # in the order of their ranks
    gpu: str | None  # its name, where tensors are on GPUs
    ranks: int
    backend: Backend
    interface: str | None  # of the first host; NCCL may only meet there and send through InfiniBand
    torch: str
    operations: tuple[CommFit, ...]

    @property
    def key(self) -> str:
        """What a later measurement replaces: same partition, same GPUs or hosts, backend, nodes and ranks on each."""
        hardware = self.gpu or "+".join(self.hosts)
        return "/".join((self.partition or "local", hardware, self.backend, f"{len(self.hosts)}n{self.ranks}r"))


def ring_steps(operation: Operation, ranks: int) -> int:
    """Latencies that one operation pays after each other."""
    return {"all_reduce": 2 * (ranks - 1), "all_gather": ranks - 1, "send_recv": 1}[operation]


def ring_share(operation: Operation, ranks: int) -> float:
    """The share of an operation's bytes that passes every rank."""
    return 1.0 if operation == "send_recv" else ring_steps(operation, ranks) / ranks
