"""Which launcher a deployment runs under."""

from ..core.errors import RunDirectoryError
from ..core.job import Launcher
from ..core.rundir import RunDirectory
from .local import LocalLauncher


def launcher_named(name: str) -> Launcher:
    """The launcher "slurm" or "local". Raises SlurmError where there is no Slurm."""
    if name == LocalLauncher.name:
        return LocalLauncher()
    from ..slurm.submit import SlurmLauncher

    return SlurmLauncher()


def launcher_of(run: RunDirectory) -> Launcher:
    """The launcher that the run's `serve` used. Raises RunDirectoryError if nothing of it runs."""
    deployment = run.read_deployment()
    if deployment is None:
        raise RunDirectoryError(f"deployment '{run.path.name}' is stopped")
    return launcher_named(deployment.launcher)
