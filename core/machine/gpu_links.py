"""How the GPUs of this process are linked, as `nvidia-smi topo -m` tells, and in which order ranks should have them.

Only GPUs that the job's cgroup allows are in its table, and they are numbered anew there.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from .cpus import parse_cpu_list

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # the header is underlined where the driver takes its output for a terminal
_DEVICE = re.compile(r"GPU(\d+)")
_NVLINK = re.compile(r"NV(\d+)")
_CPU_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
# From one PCIe switch to another socket, as the legend of the table orders them. Any NVLink is better.
_PCIE = {"PIX": 5, "PXB": 4, "PHB": 3, "NODE": 2, "SYS": 1}
_MOST_ORDERED = 16  # GPUs of a node; larger ones have NVLink switches, and there are too many groups to look at
_NVLINK_WORTH = 1000  # that all of a group have one matters more than how many lanes each has


@dataclass(frozen=True)
class GpuLinks:
    """The links among `count` GPUs, numbered from 0."""

    count: int
    words: Mapping[frozenset[int], str]  # by pair, as nvidia-smi says: NV4, PIX, ..., SYS
    cpus: Mapping[int, frozenset[int]]  # the CPUs nearest to each, of the whole machine; some may be missing

    def has_nvlink(self, one: int, other: int) -> bool:
        """Whether NVLink connects two GPUs directly, or through a switch of its own."""
        return bool(_NVLINK.fullmatch(self.word(one, other)))

    def word(self, one: int, other: int) -> str:
        """How two GPUs are connected; empty where nothing is known."""
        return self.words.get(frozenset((one, other)), "")

    def worth(self, gpus: Sequence[int]) -> int:
        """How well a group is connected; only to be compared."""
        return sum(self._worth(one, other) for one, other in combinations(gpus, 2))

    def _worth(self, one: int, other: int) -> int:
        lanes = _NVLINK.fullmatch(self.word(one, other))
        return _NVLINK_WORTH + int(lanes[1]) if lanes else _PCIE.get(self.word(one, other), 0)


def parse_links(table: str) -> GpuLinks | None:
    """What `nvidia-smi topo -m` has printed; None where that is no such table."""
    lines = [line.split() for line in _ESCAPES.sub("", table).splitlines()]
    header = next((line for line in lines if line and _DEVICE.fullmatch(line[0]) and "X" not in line), [])
    devices = [word for word in header[: header.index("CPU") if "CPU" in header else None]]
    rows = {line[0]: line[1:] for line in lines if line and line is not header and _DEVICE.fullmatch(line[0])}
    gpus = [name for name in devices if name in rows]
    if not gpus or any(len(rows[name]) < len(devices) for name in gpus):
        return None
    words = {
        frozenset((gpus.index(name), gpus.index(other))): rows[name][devices.index(other)]
        for name, other in combinations(gpus, 2)
    }
    nearest = {gpus.index(name): rows[name][len(devices) :][:1] for name in gpus}
    cpus = {gpu: parse_cpu_list(said[0]) for gpu, said in nearest.items() if said and _CPU_LIST.fullmatch(said[0])}
    return GpuLinks(len(gpus), words, cpus)


def in_groups(links: GpuLinks, gpus: Sequence[int], size: int) -> list[int]:
    """The GPUs in an order in which each `size` that follow each other are connected as well as possible.

    The order stays as it is where another one is not better. `gpus` is a multiple of `size` long.
    """
    if len(gpus) > _MOST_ORDERED:
        return list(gpus)
    found = [gpu for group in _grouped(links, gpus, size) for gpu in sorted(group, key=gpus.index)]
    return found if _worth(links, found, size) > _worth(links, gpus, size) else list(gpus)


def without_nvlink(links: GpuLinks, gpus: Sequence[int], size: int) -> tuple[int, int] | None:
    """Two GPUs of one group of `size` that NVLink does not connect, over others of the group neither; None: no such."""
    for group in _groups(gpus, size):
        reached, waiting = {group[0]}, [group[0]]
        while waiting:
            near = [gpu for gpu in group if gpu not in reached and links.has_nvlink(waiting[-1], gpu)]
            waiting.pop()
            reached.update(near)
            waiting += near
        for gpu in group:
            if gpu not in reached:
                return group[0], gpu
    return None


def _grouped(links: GpuLinks, gpus: Sequence[int], size: int) -> Iterator[list[int]]:
    """Groups, each begun with the GPU that has the fewest NVLinks to those left, which others could not be put to."""
    left = list(gpus)
    while left:
        first = min(left, key=lambda gpu: sum(links.has_nvlink(gpu, other) for other in left))
        others = [gpu for gpu in left if gpu != first]
        group = max(([first, *chosen] for chosen in combinations(others, size - 1)), key=links.worth)
        left = [gpu for gpu in left if gpu not in group]
        yield group


def _worth(links: GpuLinks, gpus: Sequence[int], size: int) -> int:
    return sum(links.worth(group) for group in _groups(gpus, size))


def _groups(gpus: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (gpus[start : start + size] for start in range(0, len(gpus), size))
