"""Which launcher a deployment runs under."""

from ...core.errors import RunDirectoryError
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


def launcher_here(local: bool) -> Launcher:
    """This machine's own processes where `local`, else Slurm. Raises SlurmError where there is no Slurm."""
    return launcher_named(LocalLauncher.name if local else "slurm")
