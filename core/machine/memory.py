"""How much memory this process may still take: what its Slurm job, its cgroup and the machine leave."""

import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..slurm_env import is_local, memory_limits
from .readings import resident_bytes


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


def _job_bytes(root: Path, env: Mapping[str, str]) -> list[int]:
    used = resident_bytes(root / "proc/self/status")
    return [*_cgroup_bytes(root), *(max(limit - used, 0) for limit in memory_limits(env))]


def _machine_bytes(meminfo: Path) -> int:
    """MemAvailable: free memory and what the kernel can reclaim."""
    lines = meminfo.read_text(encoding="utf-8", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024


def _cgroup_bytes(root: Path) -> Iterator[int]:
    """What each limited cgroup above this process leaves, in version 2 and version 1 hierarchies."""
    for line in (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, limit, usage = root / "sys/fs/cgroup", "memory.max", "memory.current"
            files, mapped = ("active_file", "inactive_file"), "file_mapped"
        elif "memory" in controllers.split(","):
            mount, limit, usage = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            files, mapped = ("total_active_file", "total_inactive_file"), "total_mapped_file"
        else:
            continue
        # In a container the path may lead outside of what is mounted: then the mount itself is ours.
        own = mount / path.lstrip("/")
        for folder in (own, *own.parents):
            if not folder.is_relative_to(mount):
                break
            most, used = _number(folder / limit), _number(folder / usage)
            if most is not None and used is not None:
                # Files that were read count as used until somebody needs the room, read twice ("active") or once, but
                # for those that are mapped: programs, and weights in use.
                stat = _fields(folder / "memory.stat")
                cached = max(sum(stat.get(name, 0) for name in files) - stat.get(mapped, 0), 0)
                yield min(max(most - used + cached, 0), most)


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
