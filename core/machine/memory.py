"""How much memory this process may still take: what its Slurm job, its cgroup and the machine leave."""

import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..slurm_env import is_local, memory_limits
from .readings import resident_bytes


class _Hierarchy(NamedTuple):
    """Names of the files of a cgroup, and of the lines of memory.stat."""

    limit: str
    usage: str
    files: tuple[str, str]
    mapped: str
    events: str  # has a line `oom_kill`


_VERSION_1 = _Hierarchy(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
    "total_mapped_file",
    "memory.oom_control",
)
_VERSION_2 = _Hierarchy(
    "memory.max", "memory.current", ("active_file", "inactive_file"), "file_mapped", "memory.events"
)


def available_bytes(root: Path = Path("/"), env: Mapping[str, str] = os.environ) -> int:
    """Bytes of main memory that can still be allocated."""
    return min([_machine_bytes(root / "proc/meminfo"), *_job_bytes(root, env)])


def give_back_freed() -> None:
    """Return freed memory to the system, which glibc otherwise keeps for later allocations."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, others do not
    if trim is not None:
        trim(0)


def own_bytes(root: Path = Path("/"), env: Mapping[str, str] = os.environ) -> int | None:
    """Bytes that can still be allocated of memory that a cgroup or a Slurm job has set aside; None where it is shared.

    Workers without Slurm share a machine, or the job that they are started in, with each other.
    """
    if is_local(env):
        return None
    least = min(_job_bytes(root, env), default=None)
    return least if least is not None and least <= _machine_bytes(root / "proc/meminfo") else None


def total_bytes(root: Path = Path("/")) -> int:
    """Bytes of main memory that the machine has."""
    return _meminfo(root / "proc/meminfo", "MemTotal")


def cgroup_limit(root: Path = Path("/")) -> int | None:
    """The least limit of a cgroup above this process in bytes; None where none is below the machine's memory."""
    limits = (_number(folder / kind.limit) for kind, folder in _cgroups(root))
    least = min((limit for limit in limits if limit is not None), default=None)
    return least if least is not None and least < total_bytes(root) else None


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes of this process's cgroup the kernel has killed because memory was full; 0 if it does not say.

    The kernel counts before it kills, be it the limit of the cgroup, of one above it, or the machine that was full.
    """
    for kind, folder in _cgroups(root):
        count = _fields(folder / kind.events).get("oom_kill")
        if count is not None:
            return count
    return 0


def _job_bytes(root: Path, env: Mapping[str, str]) -> list[int]:
    used = resident_bytes(root / "proc/self/status")
    return [*_cgroup_bytes(root), *(max(limit - used, 0) for limit in memory_limits(env))]


def _machine_bytes(meminfo: Path) -> int:
    """MemAvailable: free memory and what the kernel can reclaim."""
    return _meminfo(meminfo, "MemAvailable")


def _meminfo(meminfo: Path, name: str) -> int:
    lines = meminfo.read_text(encoding="utf-8", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def _cgroup_bytes(root: Path) -> Iterator[int]:
    """What each limited cgroup above this process leaves, in version 2 and version 1 hierarchies."""
    for kind, folder in _cgroups(root):
        most, used = _number(folder / kind.limit), _number(folder / kind.usage)
        if most is not None and used is not None:
            # Files that were read count as used until somebody needs the room, read twice ("active") or once, but
            # for those that are mapped: programs, and weights in use.
            stat = _fields(folder / "memory.stat")
            cached = max(sum(stat.get(name, 0) for name in kind.files) - stat.get(kind.mapped, 0), 0)
            yield min(max(most - used + cached, 0), most)


def _cgroups(root: Path) -> Iterator[tuple[_Hierarchy, Path]]:
    """The cgroups above this process that may limit memory, each with the names of its files."""
    for line in (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, kind = root / "sys/fs/cgroup", _VERSION_2
        elif "memory" in controllers.split(","):
            mount, kind = root / "sys/fs/cgroup/memory", _VERSION_1
        else:
            continue
        # In a container the path may lead outside of what is mounted: then the mount itself is ours.
        own = mount / path.lstrip("/")
        yield from ((kind, folder) for folder in (own, *own.parents) if folder.is_relative_to(mount))


def _fields(path: Path) -> dict[str, int]:
    """A file of lines with a name and a number each; empty without."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {name: int(number) for name, number in map(str.split, lines)}


def _number(path: Path) -> int | None:
    """The file's integer; None if it is not there or says `max`."""
    try:
        return int(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return None
