"""Which launcher a deployment runs under."""

from ...core.job import Launcher
from .local import LocalLauncher


def launcher_named(name: str) -> Launcher:
    """The launcher "slurm" or "local". Raises SlurmError where there is no Slurm."""
    if name == LocalLauncher.name:
        return LocalLauncher()
    from ...slurm.submit import SlurmLauncher

    return SlurmLauncher()
