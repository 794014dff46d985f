"""Whether sglang-router is there, before anything is started."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE

from ...core.errors import RouterError

VERSION = "0.3.2"
_LOOK = "from importlib.metadata import version; print(version('sglang-router'))"
_LONGEST_S = 60.0  # the first look into an environment on a shared filesystem takes long


async def require_installed(python: str | None) -> None:
    """Raises RouterError unless the interpreter (None: this one) has sglang-router in the version that we drive."""
    python = python or sys.executable
    found = await _version(python)
    if found != VERSION:
        there = f"sglang-router {found}" if found else "no sglang-router"
        raise RouterError(
            f"backend = 'sglang': {there} in the environment of {python}; expected sglang-router {VERSION} there "
            f"(pip install sglang-router=={VERSION}), or router.python = the interpreter of one that has it"
        )


async def _version(python: str) -> str:
    """What is installed; empty for nothing. Raises RouterError for an interpreter that cannot be started."""
    try:
        looking = await asyncio.create_subprocess_exec(python, "-c", _LOOK, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
    except OSError as error:
        raise RouterError(f"router.python = {python!r} cannot be started: {error.strerror}") from error
    try:
        said, _ = await asyncio.wait_for(looking.communicate(), _LONGEST_S)
    except TimeoutError as error:
        looking.kill()
        await looking.wait()
        raise RouterError(f"router.python = {python!r} does not start within {_LONGEST_S:g} s") from error
    return said.decode(errors="replace").strip()
