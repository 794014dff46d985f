"""The CPUs that this process may use: those of its job, not all of the node."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
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
    ids = cpu_ids(allowed)
    return Cpus(cpus=len(ids), cores=len(by_core(ids, system)), numa_nodes=len(by_domain(ids, system)))


def cpu_ids(allowed: Iterable[int] | None = None) -> frozenset[int]:
    """The `allowed` CPUs, by default those of this thread: what the job's cpuset and taskset have left."""
    return frozenset(os.sched_getaffinity(0) if allowed is None else allowed)


def by_domain(ids: frozenset[int], system: Path = SYSTEM) -> dict[int, frozenset[int]]:
    """The CPUs of each NUMA domain that has any of them, by its number; all in domain 0 where the kernel is silent."""
    folders = sorted(system.glob("node/node[0-9]*"), key=number_of)
    found = {number_of(folder): ids & parse_cpu_list(read_text(folder / "cpulist")) for folder in folders}
    return {number: cpus for number, cpus in found.items() if cpus} or {0: ids}


def by_core(ids: frozenset[int], system: Path = SYSTEM) -> list[frozenset[int]]:
    """The hardware threads of each core, of those in `ids`."""
    cores: dict[str, set[int]] = {}
    for id in sorted(ids):
        cores.setdefault(read_text(system / f"cpu/cpu{id}/topology/thread_siblings_list") or str(id), set()).add(id)
    return [frozenset(core) for core in cores.values()]


def parse_cpu_list(text: str) -> frozenset[int]:
    """The numbers in a list as the kernel writes them: "0-3,8" is 0, 1, 2, 3, 8."""
    spans = (part.partition("-") for part in text.strip().split(",") if part)
    return frozenset(id for first, _, last in spans for id in range(int(first), int(last or first) + 1))


def format_cpu_list(ids: Iterable[int]) -> str:
    """The numbers as the kernel writes them: 0, 1, 2, 3, 8 is "0-3,8"."""
    spans = []
    for _, group in groupby(enumerate(sorted(ids)), lambda item: item[1] - item[0]):
        numbers = [id for _, id in group]
        spans.append(f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}")
    return ",".join(spans)


def number_of(folder: Path) -> int:
    """The number of a NUMA domain from its folder, nodeN."""
    return int(folder.name.removeprefix("node"))


def read_text(path: Path) -> str:
    """The text of a file of the kernel's; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
