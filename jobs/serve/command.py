"""`slurminfer serve`, as the command line and `slurminfer batch --spec` begin it."""

from ...core.job import Launcher
from ...core.rundir import RunDirectory
from ...core.spec import DeploymentSpec
from ..terminal.progress import model_progress
from .deployment import submit
from .spec import with_models_found


def start(spec: DeploymentSpec, launcher: Launcher) -> RunDirectory:
    """Find the models of a spec, showing how far that is, and submit its jobs. Raises ModelError, and as `submit`."""
    with model_progress() as progress:
        found = with_models_found(spec, progress)
    return submit(found, launcher)
