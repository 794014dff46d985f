"""An engine's process in a container of Apptainer, or of Singularity, which has the same options.

Apptainer's own process is the agent's child. It hands signals on, returns the engine's exit status, and is the parent
of a PID namespace: nothing that the engine has started outlives it, whatever ends it.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...core.containers import Mount
from ...core.errors import EngineError
from ...core.machine.readings import device_files
from ..engines.launch import EngineLaunch

_AMD = Path("/dev/kfd")


def program() -> str:
    """Path of the program on this node. Raises EngineError if there is none."""
    found = shutil.which("apptainer") or shutil.which("singularity")
    if found is None:
        how = "where it is an environment module, setup = ['module load apptainer'] of the pool loads it"
        raise EngineError(f"container_runtime = 'apptainer': neither apptainer nor singularity is on PATH; {how}")
    return found


def argv(
    program: str, words: Sequence[str], launch: EngineLaunch, mounts: Sequence[Mount], is_amd: bool = False
) -> list[str]:
    """The command line that runs `words` in the container."""
    assert launch.pool.container is not None
    gpus = [] if not launch.pool.gpus_per_node else ["--rocm" if is_amd else "--nv"]
    binds = [word for mount in mounts for word in ("--bind", str(mount))]
    own = ["--pid", "--cleanenv", "--no-eval", "--pwd", str(launch.private)]
    return [program, "exec", *own, *gpus, *binds, launch.pool.container, *words]


def env(program: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The environment by which Apptainer sets `variables` in the container; its --env would show keys to everybody."""
    prefix = f"{os.path.basename(program).upper()}ENV_"
    return {f"{prefix}{name}": value for name, value in variables.items()}


def has_amd_gpus() -> bool:
    """Whether this node's GPUs are AMD's."""
    return _AMD.exists() and not device_files()
