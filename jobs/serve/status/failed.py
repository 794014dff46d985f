"""Whether waiting for a deployment has become pointless, and why."""

from ....core.errors import EngineError
from ....core.records import WorkerState
from .state import SHOWN_ENDED, DeploymentView


def require_not_failed(view: DeploymentView) -> None:
    """Raise EngineError, with the cause and what to change, where a deployment will not answer however long it waits.

    It has failed, or was stopped, or Slurm does not start the router's job as it is, or none of the workers' jobs.
    """
    if obstacle := _cannot_start(view):
        raise EngineError(f"deployment '{view.name}' cannot start: {obstacle}")
    if view.state == "stopped":
        raise EngineError(f"deployment '{view.name}' was stopped; 'slurminfer serve' starts it")
    if view.state in ("failed", "damaged", "unknown"):
        raise EngineError(f"deployment '{view.name}' {view.state}: {_why_failed(view)}")
    if all_failed := _all_failed(view):
        raise EngineError(f"deployment '{view.name}' has no worker: {all_failed}")


def _cannot_start(view: DeploymentView) -> str:
    """What never ends by waiting: the router's job cannot start, or no worker's can; else an empty string."""
    if view.obstacle:
        return f"the router's job: {_joined(view.reason, view.advice)}"
    stuck = [worker for worker in view.workers if worker.obstacle]
    if stuck and all(worker.obstacle or worker.state == WorkerState.GONE for worker in view.workers):
        return f"worker {stuck[0].id}: {_joined(stuck[0].reason, stuck[0].advice)}"
    return ""


def _all_failed(view: DeploymentView) -> str:
    """Why none of the workers that were started has served, though the controller tries again; empty if one may."""
    failed = [one for pool in view.pools for one in pool.ended if not one.by_scheduler]
    wanted = sum(min(pool.wanted or 0, SHOWN_ENDED) for pool in view.pools)
    if view.ready_workers or not failed or len(failed) < wanted or any(one.ready_s for one in failed):
        return ""
    return _joined(f"{failed[-1].id} ended: {failed[-1].cause}", failed[-1].advice)


def _why_failed(view: DeploymentView) -> str:
    return _joined(": ".join(part for part in (view.cause, view.reason) if part) or "nobody knows why", view.advice)


def _joined(reason: str, advice: str) -> str:
    return f"{reason}. What to change: {advice}" if advice else reason
