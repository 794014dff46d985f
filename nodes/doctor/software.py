"""Versions, the compiler, container runtimes, and limits of processes."""

import os
import platform
import re
import resource
import shutil

from ...core.errors import CommandError
from ...core.processes import process
from ...core.site.machine import Software

_CONTAINERS = ("apptainer", "singularity", "enroot", "podman", "charliecloud", "ch-run", "shifter", "sarus")
_VERSION = re.compile(r"\d+\.\d+[\w.+-]*")
_TIMEOUT_S = 10.0


def software() -> Software:
    """What programs find here."""
    return Software(
        python=platform.python_version(),
        glibc=" ".join(platform.libc_ver()).strip(),
        kernel=platform.release(),
        compiler=shutil.which("g++"),
        containers={name: _version(name) for name in _CONTAINERS if shutil.which(name)},
        open_files=_limit(resource.RLIMIT_NOFILE),
        locked_memory=_limit(resource.RLIMIT_MEMLOCK),
    )


def glibc_version(text: str) -> tuple[int, ...]:
    """The numbers of "glibc 2.36", to compare; empty for another C library."""
    found = re.fullmatch(r"glibc (\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def _version(name: str) -> str:
    option = "version" if name == "enroot" else "--version"
    try:
        found = _VERSION.search(process.run([name, option], timeout_s=_TIMEOUT_S, env=dict(os.environ)))
    except CommandError:
        return ""
    return found[0] if found else ""


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft
