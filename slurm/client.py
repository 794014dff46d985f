"""Slurm's own commands: an environment that changes no answer, and one error type."""

import os
import shutil
from collections.abc import Mapping, Sequence

from ..core import process
from ..core.errors import CommandError, SlurmError

# Defaults that users set for their own look at the queue: they would filter or reformat what is parsed here.
_VIEW = ("SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SLURM_TIME_FORMAT")
# Left untouched in a submission's environment: where Slurm is and how to log in, not which job this is.
_ACCESS = ("SLURM_CONF", "SLURM_JWT")
TIMEOUT_S = 60.0


def ask(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """Standard output of one of Slurm's commands. Raises SlurmError, with Slurm's own words."""
    require(argv[0])
    clean = {key: value for key, value in os.environ.items() if not key.startswith(_VIEW)}
    try:
        return process.run(argv, env={**clean, **(env or {})}, timeout_s=TIMEOUT_S)
    except CommandError as error:
        raise SlurmError(f"{argv[0]}: {own_words(error.stderr)}" if error.stderr else str(error)) from error


def require(command: str) -> None:
    """Raise SlurmError where this machine has no Slurm."""
    if not shutil.which(command):
        raise SlurmError(f"no Slurm here: {command} is not on PATH")


def own_words(stderr: str) -> str:
    """What a command of Slurm complains about, without its "sbatch: error: " before every line."""
    lines = (line.split("error: ")[-1].split("fatal: ")[-1].strip() for line in stderr.splitlines())
    return "; ".join(line for line in lines if line)


def access_environment() -> dict[str, str]:
    """The variables without which Slurm's commands may find no cluster."""
    return {name: os.environ[name] for name in _ACCESS if name in os.environ}
