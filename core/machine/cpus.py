"""The CPUs that this process may use: those of its job, not all of the node."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

SYSTEM = Path("/sys/devices/system")


@dataclass(frozen=True)
class Cpus:
    """Counts of what the process may run on."""

    cpus: int  # as the kernel and Slurm count: hardware threads
    cores: int
    numa_nodes: int


def allowed_cpus(allowed: Iterable[int] | None = None, system: Path = SYSTEM) -> Cpus:
    """What `allowed` CPUs are, by default those of this process. Where the kernel does not tell, each is a core."""
    ids = frozenset(os.sched_getaffinity(0) if allowed is None else allowed)
    return Cpus(cpus=len(ids), cores=_cores(ids, system), numa_nodes=len(_by_node(ids, system)))


def numa_home(
    index: int, wanted: Sequence[int], allowed: Iterable[int] | None = None, system: Path = SYSTEM
) -> frozenset[int] | None:
    """The CPUs of the NUMA node that the process `index` should keep to, where each of several wants so many CPUs.

    Each in turn gets the node that has most left. None, and all may run everywhere: one process alone, processes that
    do not all find room, or that fit into one node together. Then the kernel knows better what is idle.
    """
    nodes = _by_node(frozenset(os.sched_getaffinity(0) if allowed is None else allowed), system)
    left, homes = [len(node) for node in nodes], []
    for count in wanted:
        homes.append(max(range(len(nodes)), key=left.__getitem__))
        left[homes[-1]] -= count
    fit_into_one = sum(wanted) <= max(_cores(node, system) for node in nodes)
    if len(wanted) == 1 or len(nodes) == 1 or fit_into_one or min(left) < 0:
        return None
    return nodes[homes[index]]


def divide_cpus(count: int, allowed: Iterable[int] | None = None, system: Path = SYSTEM) -> list[frozenset[int]] | None:
    """`allowed` CPUs in `count` shares of whole cores, NUMA node by NUMA node. None: too few cores, or one share."""
    ids = frozenset(os.sched_getaffinity(0) if allowed is None else allowed)
    cores = [core for node in _by_node(ids, system) for core in _by_core(node, system)]
    if count == 1 or len(cores) < count:
        return None
    cuts = [len(cores) * i // count for i in range(count + 1)]
    return [frozenset().union(*cores[start:stop]) for start, stop in pairwise(cuts)]


def parse_cpu_list(text: str) -> frozenset[int]:
    """The numbers in a list as the kernel writes them: "0-3,8" is 0, 1, 2, 3, 8."""
    spans = (part.partition("-") for part in text.strip().split(",") if part)
    return frozenset(id for first, _, last in spans for id in range(int(first), int(last or first) + 1))


def _by_node(ids: frozenset[int], system: Path) -> list[frozenset[int]]:
    """The CPUs of each NUMA node, of those that have any; all in one where the kernel does not tell."""
    paths = sorted(system.glob("node/node[0-9]*/cpulist"))
    return [node for path in paths if (node := ids & parse_cpu_list(_read(path, "")))] or [ids]


def _cores(ids: frozenset[int], system: Path) -> int:
    return len(_by_core(ids, system))


def _by_core(ids: frozenset[int], system: Path) -> list[frozenset[int]]:
    """The hardware threads of each core, of those in `ids`."""
    cores: dict[str, set[int]] = {}
    for id in sorted(ids):
        cores.setdefault(_read(system / f"cpu/cpu{id}/topology/thread_siblings_list", str(id)), set()).add(id)
    return [frozenset(core) for core in cores.values()]


def _read(path: Path, default: str) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return default
