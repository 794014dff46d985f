"""Which launcher a deployment runs under."""

from ...core.errors import RunDirectoryError, SlurmError
from ...core.job import Launcher
from .local import LocalLauncher


def launcher_named(name: str) -> Launcher:
    """The launcher "slurm" or "local".

    Raises RunDirectoryError for another name, SlurmError where there is no Slurm.
    """
    if name == LocalLauncher.name:
        return LocalLauncher()
    if name != "slurm":
        raise RunDirectoryError(f"launcher {name!r}: expected 'slurm' or 'local'")
    from ...slurm.submit import SlurmLauncher

    return SlurmLauncher()


def launcher_here(local: bool, *, submits: bool = True) -> Launcher:
    """This machine's own processes where `local`, else Slurm.

    Raises SlurmError where jobs are to be submitted and there is no Slurm: now, and not after a model was fetched.
    """
    if local:
        return LocalLauncher()
    from ...slurm.client import require

    try:
        if submits:
            require("sbatch")
        return launcher_named("slurm")
    except SlurmError as error:
        raise SlurmError(f"{error}; to start processes of this machine instead, add --local") from error
