"""A cgroup with little memory, as Slurm gives one to a job. It takes root and a memory controller that may be used."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

_ROOT = Path("/sys/fs/cgroup")
_NAMES = {  # of the limit, of what says whether the kernel has killed, by version of cgroups
    1: ("memory.limit_in_bytes", "memory.oom_control"),
    2: ("memory.max", "memory.events"),
}


@dataclass(frozen=True)
class Cgroup:
    """Processes enter it by writing their id into `procs`."""

    path: Path
    version: int

    @property
    def procs(self) -> Path:
        return self.path / "cgroup.procs"

    @property
    def events(self) -> Path:
        """The file that says, among others, how many of its processes the kernel has killed as memory was full."""
        return self.path / _NAMES[self.version][1]

    @property
    def kills(self) -> int:
        """That number."""
        words = self.events.read_text().split()
        return int(words[words.index("oom_kill") + 1])


@contextmanager
def limited_cgroup(limit: int) -> Iterator[Cgroup]:
    """A cgroup of so many bytes below that of this process. Skips the test where none can be made."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()]
    first = next(
        (_ROOT / "memory" / path.lstrip("/") for _, names, path in lines if "memory" in names.split(",")), None
    )
    version = 1 if first else 2
    parent = first or _ROOT / next((path.lstrip("/") for _, names, path in lines if not names), "")
    place = parent / f"slurminfer-test-{os.getpid()}"
    try:
        place.mkdir()
        (place / _NAMES[version][0]).write_text(str(limit))
    except OSError as error:
        with suppress(OSError):
            place.rmdir()
        pytest.skip(f"cannot limit memory here (it takes root and a cgroup that may be written): {error}")
    try:
        yield Cgroup(place, version)
    finally:
        place.rmdir()
