"""Why jobs of a deployment wait or have ended, as lines for a terminal: what is said of several jobs is said once."""

import time
from collections.abc import Iterator, Mapping

from ....core.records import EndedWorker
from .state import DeploymentView, PoolView, WorkerView

_NAMED = 3  # of the jobs of which the same is said
_SHIFT_S = 900.0  # by which the start that Slurm expects must have moved to be told again


def reason_lines(cause: str, reason: str, advice: str) -> str:
    """What was said, after what it means where that is known; and on a line of its own what to change."""
    said = ": ".join(part for part in (cause, reason) if part)
    return f"{said}\n    what to change: {advice}" if said and advice else said


def worker_lines(view: DeploymentView) -> Iterator[str]:
    """What is said of the workers of a deployment, besides what is said of the deployment itself."""
    remarks = {worker.id: worker.remark for worker in view.workers}
    yield from _together(remarks)
    yield from _together(
        {
            worker.id: reason_lines(worker.cause, worker.reason, worker.advice)
            for worker in view.workers
            if worker.reason != view.reason
        }
    )


def ended_lines(pool: PoolView) -> Iterator[str]:
    """Why the latest workers of a pool have ended; what is the same but for their names is said once."""
    groups: dict[str, list[EndedWorker]] = {}
    for one in pool.ended:
        groups.setdefault(reason_lines("", one.cause.replace(one.id, "WORKER"), one.advice), []).append(one)
    for group in groups.values():
        last = group[-1]
        at = time.strftime("%H:%M:%S", time.localtime(last.at))
        said = reason_lines("", last.cause, last.advice)
        names = ", ".join(one.id for one in group)
        yield f"{names} ended{', the last' if len(group) > 1 else ''} at {at}: {said}"


class News:
    """What is new at each look at a deployment that somebody waits for."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, int]] = {}

    def lines(self, view: DeploymentView) -> Iterator[str]:
        """Why jobs wait or have ended, where that is not what was told last."""
        router = (view.reason, 0) if view.state == "pending" else ("", 0)
        told = {"router": router} | {worker.id: _key(worker) for worker in view.workers}
        changed = {role for role, key in told.items() if key != self._said.get(role)}
        self._said = told
        texts = {"router": view.reason} | {worker.id: _text(worker) for worker in view.workers}
        yield from _together({role: texts[role] for role in told if role in changed and told[role][0]})


def _key(worker: WorkerView) -> tuple[str, int]:
    """What must change to be news: the words without the time, and roughly when it is expected to start."""
    words = _text(worker).partition(": start expected at ")[0]
    return words, round((worker.starts_at or 0.0) / _SHIFT_S)


def _text(worker: WorkerView) -> str:
    if worker.state not in ("pending", "gone"):
        return worker.remark
    said = ": ".join(part for part in (worker.state, worker.cause, worker.reason) if part)
    return f"{said}; what to change: {worker.advice}" if worker.advice and worker.reason else said


def _together(texts: Mapping[str, str]) -> Iterator[str]:
    """A line for each different text, behind the names that it is said of."""
    for text in dict.fromkeys(filter(None, texts.values())):
        names = [name for name, said in texts.items() if said == text]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield f"{', '.join(names[:_NAMED])}{more}: {text}"
