"""Whether the kernel has killed a process of an engine because memory was full.

From outside, such a process was killed by SIGKILL like any other. The cgroup that Slurm has made for the job counts it.
"""

from pathlib import Path

from ...core.machine import memory

_GIB = 1 << 30


class MemoryWatch:
    """Looks for kills since it was made, in the cgroup of this process, which is also that of what it starts."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root, self._before = root, memory.oom_kills(root)

    def told(self) -> str:
        """How much memory there was, if a process was killed for want of it; else empty."""
        if memory.oom_kills(self._root) <= self._before:
            return ""
        limit = memory.cgroup_limit(self._root)
        if limit is None:
            return f"out of memory, the machine has {_gib(memory.total_bytes(self._root))}"
        return f"out of memory, the limit of its cgroup is {_gib(limit)}"


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"
