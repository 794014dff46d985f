"""The NUMA domains of this process, and how processes and ranks are divided among them.

Domains are the kernel's nodes, cut to what the job was given: CPUs by its cpuset (`sched_getaffinity`), memory by
Mems_allowed_list. A node without CPUs (HBM, CXL, memory of a GPU) is no domain: nothing can compute there. Its memory
is not preferred either, because sysfs does not say which kind it is; when a domain's own memory is full, the kernel
takes the nearest, which such a node is.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

from .cpus import SYSTEM, by_core, by_domain, cpu_ids, number_of, parse_cpu_list, read_text

STATUS = Path("/proc/self/status")
# Ranks compute in lockstep. Keeping each to one domain is not worth a rank with less than this part of an even share.
_LEAST_PART = 0.75


@dataclass(frozen=True)
class NumaDomain:
    """A NUMA domain in which this process may compute."""

    number: int
    cores: tuple[frozenset[int], ...]  # the allowed hardware threads of each core
    memory: frozenset[int]  # the kernel's nodes with the memory beside it; empty where that is unknown

    @property
    def cpus(self) -> frozenset[int]:
        """Its allowed hardware threads."""
        return frozenset().union(*self.cores)


def numa_domains(
    allowed: Iterable[int] | None = None, system: Path = SYSTEM, status: Path = STATUS
) -> tuple[NumaDomain, ...]:
    """The domains of the `allowed` CPUs, by default of this process's, by their numbers. At least one.

    Args:
        allowed: CPUs.
        system: where the kernel tells of its CPUs and nodes.
        status: where it tells of the process.
    """
    memory = memory_nodes(system, status)
    return tuple(
        NumaDomain(number, tuple(by_core(cpus, system)), _nearest(number, memory, system))
        for number, cpus in by_domain(cpu_ids(allowed), system).items()
    )


def memory_nodes(system: Path = SYSTEM, status: Path = STATUS) -> frozenset[int]:
    """The kernel's nodes from which this process may take memory; empty where the kernel does not tell."""
    having = {number_of(folder) for folder in system.glob("node/node[0-9]*") if node_memory(folder)}
    listed = re.search(r"^Mems_allowed_list:\s*(\S*)", read_text(status), re.MULTILINE)
    return frozenset(having & parse_cpu_list(listed[1]) if listed else having)


def own_memory(
    allowed: Iterable[int] | None = None, system: Path = SYSTEM, status: Path = STATUS
) -> frozenset[int] | None:
    """The nodes from which a process with these CPUs should take its memory.

    Empty: from wherever each thread runs, because the CPUs are of several domains. None: there is nothing to choose.
    """
    if len(memory_nodes(system, status)) < 2:
        return None
    domains = numa_domains(allowed, system, status)
    return domains[0].memory if len(domains) == 1 else frozenset()


def numa_home(
    index: int, wanted: Sequence[int], allowed: Iterable[int] | None = None, system: Path = SYSTEM
) -> frozenset[int] | None:
    """The CPUs of the NUMA domain that the process `index` should keep to, where each of several wants so many CPUs.

    Each in turn gets the domain that has most left. None, and all may run everywhere: one process alone, processes that
    do not all find room, or that fit into one domain together. Then the kernel knows better what is idle.
    """
    domains = list(by_domain(cpu_ids(allowed), system).values())
    left, homes = [len(domain) for domain in domains], []
    for count in wanted:
        homes.append(max(range(len(domains)), key=left.__getitem__))
        left[homes[-1]] -= count
    fit_into_one = sum(wanted) <= max(len(by_core(domain, system)) for domain in domains)
    if len(wanted) == 1 or len(domains) == 1 or fit_into_one or min(left) < 0:
        return None
    return domains[homes[index]]


def divide_cpus(count: int, allowed: Iterable[int] | None = None, system: Path = SYSTEM) -> list[frozenset[int]] | None:
    """`allowed` CPUs in `count` shares of whole cores. None: fewer cores than shares, or one share.

    Each share lies in one NUMA domain where the domains hold as many shares each, or consists of whole domains where
    they can be divided so. Otherwise, and where the domains' sizes differ much, shares are of one size.
    """
    domains = [by_core(cpus, system) for cpus in by_domain(cpu_ids(allowed), system).values()]
    cores = [core for domain in domains for core in domain]
    if count == 1 or len(cores) < count:
        return None
    shares = _by_whole_domains(count, domains)
    if min(map(len, shares), default=0) < max(_LEAST_PART * (len(cores) // count), 1):
        shares = _cut(cores, count)
    return [frozenset().union(*share) for share in shares]


_Cores = list[frozenset[int]]


def _by_whole_domains(count: int, domains: list[_Cores]) -> list[_Cores]:
    """Shares that do not split a domain among shares of two; none where the numbers do not allow it."""
    if count % len(domains) == 0:
        return [share for domain in domains for share in _cut(domain, count // len(domains))]
    if len(domains) % count == 0:
        several = len(domains) // count
        return [list(chain(*domains[start : start + several])) for start in range(0, len(domains), several)]
    return []


def _cut(cores: _Cores, count: int) -> list[_Cores]:
    cuts = [len(cores) * i // count for i in range(count + 1)]
    return [cores[start:stop] for start, stop in pairwise(cuts)]


def node_memory(folder: Path) -> int | None:
    """Bytes of memory of one of the kernel's nodes, by its folder; None where that is not told."""
    total = re.search(r"MemTotal:\s*(\d+) kB", read_text(folder / "meminfo"))
    return int(total[1]) * 1024 if total else None


def _nearest(number: int, memory: frozenset[int], system: Path) -> frozenset[int]:
    """The domain's own memory; of one that has none, or may not use it, the nearest of the others'."""
    if number in memory or not memory:
        return frozenset({number}) & memory
    nodes = sorted(map(number_of, system.glob("node/node[0-9]*")))
    distances = dict(zip(nodes, map(int, read_text(system / f"node/node{number}/distance").split()), strict=False))
    least = min(distances.get(node, 0) for node in memory)
    return frozenset(node for node in memory if distances.get(node, 0) == least)
