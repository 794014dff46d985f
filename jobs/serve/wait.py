"""Waiting for a deployment to answer, and for it to be gone."""

import time
from collections.abc import Callable

from ...core.errors import EngineError, SlurminferError
from ...core.rundir import RunDirectory
from ..launch.launchers import launcher_named
from .status import DeploymentView, look

_LOOK_EVERY_S = 1.0
_STOP_PATIENCE_S = 60.0
# An agent lets requests in flight finish for 20 s after SIGTERM, then gives its engine 5 s.
_GRACE_S = 30.0


def until_ready(run: RunDirectory, on_look: Callable[[DeploymentView], None]) -> DeploymentView:
    """Look until the endpoint answers and every worker whose job runs is ready; pending ones are not waited for.

    Raises EngineError with the root cause where the deployment fails before that. Waits as long as Slurm's queue does.
    """
    while True:
        view = look(run)
        on_look(view)
        if view.state in ("failed", "stopped"):
            raise EngineError(f"deployment '{view.name}' {view.state}: {view.reason or 'it was stopped'}")
        if view.state == "ready" and not any(worker.state == "starting" for worker in view.workers):
            return view
        time.sleep(_LOOK_EVERY_S)


def stop(run: RunDirectory) -> int:
    """End all jobs of a deployment and forget them; how many there were. Stopping what is stopped is no error.

    Raises SlurminferError if jobs are still there after a minute.
    """
    deployment = run.read_deployment()
    if deployment is None:
        return 0
    launcher = launcher_named(deployment.launcher)
    ids = [job.id for job in deployment.jobs]
    launcher.cancel(ids)
    started = time.monotonic()
    while left := [job for job, status in launcher.observe(ids).items() if status.phase.is_living]:
        waited = time.monotonic() - started
        if waited > _GRACE_S:
            launcher.kill(left)
        if waited > _STOP_PATIENCE_S:
            raise SlurminferError(f"jobs {', '.join(left)} have not ended {_STOP_PATIENCE_S:g} s after being cancelled")
        time.sleep(0.3)
    run.clear()
    return len(ids)
