"""The CPUs that this process may use: those of its job, not all of the node."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SYSTEM = Path("/sys/devices/system")


@dataclass(frozen=True)
class Cpus:
    """Counts of what the process may run on."""

    cpus: int  # as the kernel and Slurm count: hardware threads
    cores: int
    numa_nodes: int


def allowed_cpus(allowed: Iterable[int] | None = None, system: Path = _SYSTEM) -> Cpus:
    """What `allowed` CPUs are, by default those of this process. Where the kernel does not tell, each is a core."""
    ids = frozenset(os.sched_getaffinity(0) if allowed is None else allowed)
    siblings = {_read(system / f"cpu/cpu{id}/topology/thread_siblings_list", str(id)) for id in ids}
    nodes = [parse_cpu_list(_read(path, "")) for path in system.glob("node/node[0-9]*/cpulist")]
    return Cpus(cpus=len(ids), cores=len(siblings), numa_nodes=sum(bool(ids & node) for node in nodes) or 1)


def parse_cpu_list(text: str) -> frozenset[int]:
    """Of "0-3,8": 0, 1, 2, 3, 8."""
    spans = (part.partition("-") for part in text.strip().split(",") if part)
    return frozenset(id for first, _, last in spans for id in range(int(first), int(last or first) + 1))


def _read(path: Path, default: str) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return default
