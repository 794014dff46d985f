"""Idle nodes, and when the jobs that wait are to take them: the holes in Slurm's schedule.

`sbatch --test-only` does not see them. Beside a job that waits for many nodes it forecasts the start of a short job for
after that one, although backfill would start it at once on a node that is idle until then.

Nodes count that are idle, also if they are kept for a job (PLANNED, since Slurm 21.08); and for a job without GPUs
also those of which enough CPUs are idle. Whether there is memory for it is not known here. The start of a job that
waits, and its nodes, are those that the backfill scheduler has planned last; it plans the first jobs of the queue only.
"""

import math
from collections.abc import Iterator, Mapping

import msgspec

from .client import UNIX_TIMES, ask
from .hostlist import expand
from .values import unix_time

_IDLE, _MIXED = ("IDLE", "PLANNED"), ("MIXED",)
_SINFO = ("sinfo", "--noheader", "--all", "--Node", "--format=%N|%T|%P|%C")
_SQUEUE = ("squeue", "--noheader", "--all", "--states=PENDING", "--format=%S|%Y")


class IdleNode(msgspec.Struct, frozen=True):
    """A node with idle CPUs. `is_whole`: no job uses it."""

    cpus: int
    is_whole: bool = True


class Holes(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes with idle CPUs of each partition by their names, and from when on jobs that wait are to use nodes, Unix
    time."""

    idle: Mapping[str, Mapping[str, IdleNode]]
    default: str = ""  # partition
    planned: Mapping[str, float] = {}
    somewhere: float = math.inf  # the same for jobs whose nodes are not said: it may be any

    def until(self, want: "Want") -> float | None:
        """Until when there is room for one such job, Unix time; infinite where no job waits for its nodes. None where
        there is none."""
        ends = (sorted((end for _, end in nodes), reverse=True) for nodes in self._fitting(want))
        found = [end for ordered in ends for end in ordered[want.nodes - 1 : want.nodes]]
        return max(found, default=None)

    def room(self, want: "Want", until: float) -> int:
        """How many such jobs there is room for until then, Unix time: on nodes in use as many as have idle CPUs."""
        rooms = []
        for nodes in self._fitting(want):
            free = [node for node, end in nodes if end >= until]
            is_shared = want.nodes == 1 and not want.is_whole
            rooms.append(sum(node.cpus // want.cpus for node in free) if is_shared else len(free) // want.nodes)
        return max(rooms, default=0)

    def _fitting(self, want: "Want") -> Iterator[list[tuple[IdleNode, float]]]:
        """By partition, the nodes that the job may have, and until when."""
        names = [self.default] if want.partitions is None else want.partitions.split(",")
        for name in names:
            yield [
                (node, min(self.somewhere, self.planned.get(host, math.inf)))
                for host, node in self.idle.get(name, {}).items()
                if node.cpus >= want.cpus and (node.is_whole or not want.is_whole)
            ]


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """What a job needs. `is_whole`: only nodes that no job uses count."""

    partitions: str | None = None  # names with commas between; None: the default one
    nodes: int = 1
    cpus: int = 1  # on each node
    is_whole: bool = False


def holes() -> Holes:
    """What is idle now, and what is planned. Raises SlurmError."""
    return parse(ask(_SINFO), ask(_SQUEUE, UNIX_TIMES))


def parse(nodes: str, pending: str) -> Holes:
    """Rows of node|state|partition|CPUs as used/idle/other/all, a star behind the default partition; and rows of
    start|nodes, in Unix seconds."""
    idle: dict[str, dict[str, IdleNode]] = {}
    default = ""
    for line in nodes.splitlines():
        name, state, partition, cpus = [*line.split("|"), "", "", ""][:4]
        default = partition[:-1] if partition.endswith("*") else default
        word = state.strip().removesuffix("-").upper()  # "-": planned. Other letters: it does not answer, sleeps, ...
        if word in _IDLE or word in _MIXED:
            node = IdleNode(_idle_cpus(cpus), word in _IDLE)
            idle.setdefault(partition.removesuffix("*"), {})[name] = node
    planned: dict[str, float] = {}
    somewhere = math.inf
    for line in pending.splitlines():
        start, _, names = line.partition("|")
        if (at := unix_time(start)) is None:
            continue
        hosts = expand(names.strip())
        planned |= {name: min(at, planned.get(name, at)) for name in hosts}
        somewhere = somewhere if hosts else min(at, somewhere)
    return Holes(idle=idle, default=default, planned=planned, somewhere=somewhere)


def _idle_cpus(text: str) -> int:
    parts = text.strip().split("/")
    return int(parts[1]) if len(parts) == 4 and parts[1].isdecimal() else 0
