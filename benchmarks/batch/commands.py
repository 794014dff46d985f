"""Programs as they are run from a shell, with the time that they take and the memory that they need."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from slurminfer.core.machine.readings import peak_bytes

from .. import GIVEN
from ..machine import MIB

_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A program that has ended with exit status 0."""

    seconds: float  # from before its start to its end
    peak_mib: float  # resident memory at the peak, of all its processes together
    said: str  # the last of what it has written


def slurminfer(*words: str | Path) -> list[str]:
    """A command of slurminfer's."""
    return [sys.executable, "-m", "slurminfer", *map(str, words)]


def pinned(argv: Sequence[str], cpu: int | None) -> list[str]:
    """The command on one CPU; None: on all."""
    return list(argv) if cpu is None else ["taskset", "--cpu-list", str(cpu), *argv]


def run(argv: Sequence[str | Path], env: Mapping[str, str] | None = None, *, cpu: int | None = None) -> Ran:
    """Run a command until it ends. Raises RuntimeError with what it has said where it fails."""
    began = time.monotonic()
    process = subprocess.Popen(
        pinned([str(word) for word in argv], cpu),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**GIVEN, **(env or {})},
        encoding="utf-8",
        errors="replace",
    )
    peaks: dict[int, int] = {}
    watching = threading.Thread(target=_watch, args=(process, peaks))
    watching.start()
    said, _ = process.communicate()
    seconds = time.monotonic() - began
    watching.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}: exit status {process.returncode}: {said[-3000:]}")
    return Ran(seconds=seconds, peak_mib=sum(peaks.values()) / MIB, said=said[-3000:])


def _watch(process: "subprocess.Popen[str]", peaks: dict[int, int]) -> None:
    """Note VmHWM of the process and of all that it starts: unlike ru_maxrss, it does not count who has forked it."""
    with suppress(psutil.Error):
        root = psutil.Process(process.pid)
        while process.poll() is None:
            for one in [root, *root.children(recursive=True)]:
                with suppress(OSError, AssertionError):  # it has ended
                    peaks[one.pid] = max(peaks.get(one.pid, 0), peak_bytes(Path(f"/proc/{one.pid}/status")))
            time.sleep(_LOOK_EVERY_S)


@contextmanager
def deployment(folder: Path, name: str, spec: str) -> Iterator[dict[str, str]]:
    """A deployment of local processes that runs while the context lasts; the environment to reach it with."""
    env = {"SLURMINFER_HOME": str(folder / "home")}
    path = folder / f"{name}.toml"
    path.write_text(spec, encoding="utf-8")
    run(slurminfer("serve", path, "--local", "--wait"), env)
    try:
        yield env
    finally:
        run(slurminfer("stop", name), env)


def cpus() -> tuple[int, int]:
    """Two CPUs that this process may use; the same twice where it has one."""
    mine = sorted(os.sched_getaffinity(0))
    return mine[0], mine[-1]
