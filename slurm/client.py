"""Slurm's own commands: an environment that changes no answer, and one error type."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence

from ..core.errors import CommandError, SlurmError
from ..core.processes import process

# Defaults that users set for their own look at the queue: they would filter or reformat what is parsed here.
_VIEW = ("SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SLURM_TIME_FORMAT")
# Left untouched in a submission's environment: where Slurm is and how to log in, not which job this is.
_ACCESS = ("SLURM_CONF", "SLURM_JWT")
# What describes the job around a process, or the user's defaults for submissions: sbatch would take them for its own.
_SUBMISSION = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_")
UNIX_TIMES = {"SLURM_TIME_FORMAT": "%s"}
TIMEOUT_S = 60.0
_NO_ANSWER = "is SLURM_CONF right, and does slurmctld answer ('scontrol ping')?"
# What Slurm's commands say where they are installed and no cluster is configured.
_NO_CLUSTER = re.compile("dns srv lookup failed|could not establish a configuration", re.IGNORECASE)
WHICH_CLUSTER = "is SLURM_CONF right, and does 'sinfo' answer here?"


def own_jobs() -> str:
    """The option of squeue and sacct for the jobs of this user only."""
    return f"--user={os.getuid()}"


def ask(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """Standard output of one of Slurm's commands. Raises SlurmError, with Slurm's own words."""
    return ask_both(argv, env)[0]


def ask_both(argv: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Standard output and standard error of one of Slurm's commands. Raises SlurmError as `ask`."""
    return _run(argv, {key: value for key, value in os.environ.items() if not key.startswith(_VIEW)}, env, None)


def ask_sbatch(options: Sequence[str], script: str, timeout_s: float | None = None) -> tuple[str, str]:
    """Both outputs of sbatch with `script` on its standard input, as from outside of any job; times in Unix seconds.

    Raises SlurmError, with Slurm's own words, also where it takes longer than `timeout_s` (default: a minute).
    """
    outside = {key: value for key, value in os.environ.items() if not key.startswith(_SUBMISSION)}
    return _run(["sbatch", *options], outside, {**access_environment(), **UNIX_TIMES}, script, timeout_s)


def _run(
    argv: Sequence[str],
    base: Mapping[str, str],
    env: Mapping[str, str] | None,
    stdin: str | None,
    timeout_s: float | None = None,
) -> tuple[str, str]:
    require(argv[0])
    try:
        return process.run_both(
            argv, env={**base, **(env or {})}, timeout_s=TIMEOUT_S if timeout_s is None else timeout_s, stdin=stdin
        )
    except CommandError as error:
        if error.stderr:
            hint = f": {WHICH_CLUSTER}" if _NO_CLUSTER.search(error.stderr) else ""
            raise SlurmError(f"{argv[0]}: {own_words(error.stderr)}{hint}") from error
        late = "" if error.returncode is not None else f": {_NO_ANSWER}"
        raise SlurmError(f"{error}{late}") from error


def require(command: str) -> None:
    """Raise SlurmError where this machine has no Slurm, or SLURM_CONF names no file.

    Slurm's own commands wait a minute for such a file to appear.
    """
    if not shutil.which(command):
        raise SlurmError(f"no Slurm here: {command} is not on PATH")
    named = os.environ.get("SLURM_CONF")
    if named and not os.access(named, os.R_OK):
        why = "cannot be read" if os.path.exists(named) else "there is no such file"
        raise SlurmError(
            f"SLURM_CONF = {named!r}: {why}; expected the path of the cluster's slurm.conf, or no SLURM_CONF"
        )


def own_words(stderr: str) -> str:
    """What a command of Slurm complains about, without its "sbatch: error: " before every line."""
    lines = (line.split("error: ")[-1].split("fatal: ")[-1].strip() for line in stderr.splitlines())
    return "; ".join(line for line in lines if line)


def access_environment() -> dict[str, str]:
    """The variables without which Slurm's commands may find no cluster."""
    return {name: os.environ[name] for name in _ACCESS if name in os.environ}
