"""What a person sees of deployments in a terminal."""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from ...core.files import encode_json
from ...core.rundir import RunDirectory
from ...quant.progress import Progress as ModelProgress
from .status import DeploymentView, WorkerView
from .wait import until_ready

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False)
_LINE_INTERVAL_S = 30.0
_COUNTABLE = 10_000  # layers are; bytes are better told in percent
_COLOURS = {"ready": "green", "gone": "red", "failed": "red", "unreachable": "red", "draining": "magenta"}


@contextmanager
def model_progress() -> Iterator[ModelProgress]:
    """Progress of work on a model: a bar per stage in a terminal, a line now and then in a job's log."""
    if not _err.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_err) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                for earlier in tasks.values():  # a stage that has begun means that the ones before it are over
                    bar.update(earlier, completed=bar.tasks[earlier].total)
                tasks[stage] = bar.add_task(stage)
            bar.update(tasks[stage], completed=done, total=total or None)

        yield show


class _Lines:
    """A line when a stage begins, every half minute, and when it is done, with the time left."""

    def __init__(self) -> None:
        self._stage, self._began, self._first, self._last = "", 0.0, 0, 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began, self._first = stage, now, done
        elif now - self._last < _LINE_INTERVAL_S and done != total:
            return
        self._last = now
        of_all = f" {done}/{total}" if total < _COUNTABLE else f" {done / total:.0%}"
        line = stage + (of_all if total else "")
        if self._first < done < total:
            left = (now - self._began) / (done - self._first) * (total - done)
            line += f", {timedelta(seconds=round(left))} left"
        _err.print(line)


def print_submitted(run: RunDirectory) -> None:
    """The jobs, and what to do with them."""
    deployment = run.read_deployment()
    if deployment is None:
        return
    for job in deployment.jobs:
        _out.print(f"{job.role:<16} {deployment.launcher} job {_short(job.id)}")
    _out.print(f"run directory    {run.path}")
    _out.print(f"look with        slurminfer status {run.path.name}")


def wait_until_ready(run: RunDirectory) -> DeploymentView:
    """Wait with a line that says for what; then print how to reach the endpoint."""
    with _err.status("waiting for the scheduler") as line:
        view = until_ready(run, lambda seen: line.update(_waiting_for(seen)))
    _out.print(f"[green]ready[/green]            {view.ready_workers} of {len(view.workers)} workers")
    _out.print(f"export OPENAI_BASE_URL={view.endpoint}")
    _out.print(f"export OPENAI_API_KEY=$(cat {shlex.quote(str(run.key_path))})")
    return view


def print_views(views: list[DeploymentView], as_json: bool) -> None:
    """Deployments as tables, or as a JSON list."""
    if as_json:
        print(encode_json(views), end="")
        return
    if not views:
        _out.print("no deployments")
    for view in views:
        _print_view(view)


def _print_view(view: DeploymentView) -> None:
    _out.print(f"[bold]{view.name}[/bold]  {_coloured(view.state)}  {view.endpoint or ''}".rstrip())
    if view.reason:
        _out.print(f"  {view.reason}", markup=False)
    if view.state == "stopped":
        return
    table = Table(box=None, pad_edge=False)
    for column in ("worker", "job", "state", "slurm", "node", "in flight", "loaded in", "time left"):
        table.add_column(column, overflow="fold")
    answers = "" if view.endpoint is None else "answers" if view.router_answers else "silent"
    table.add_row("router", _short(view.router_job), answers, view.router_scheduler)
    for worker in view.workers:
        table.add_row(*_cells(worker))
    _out.print(table)
    for worker in view.workers:
        if worker.reason and worker.reason != view.reason:
            _out.print(f"  {worker.id}: {worker.reason}", markup=False)


def _cells(worker: WorkerView) -> tuple[str, ...]:
    return (
        worker.id,
        _short(worker.job),
        _coloured(worker.state),
        worker.scheduler,
        worker.node,
        "" if worker.in_flight is None else str(worker.in_flight),
        "" if worker.load_s is None else f"{worker.load_s:.1f} s",
        "" if worker.seconds_left is None else str(timedelta(seconds=int(worker.seconds_left))),
    )


def _short(job: str) -> str:
    return job.partition("@")[0]


def _coloured(state: str) -> str:
    colour = _COLOURS.get(state, "yellow")
    return f"[{colour}]{state}[/{colour}]"


def _waiting_for(view: DeploymentView) -> str:
    counts: dict[str, int] = {}
    for worker in view.workers:
        counts[worker.state] = counts.get(worker.state, 0) + 1
    workers = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return f"router {view.router_scheduler.lower()}, workers: {workers}"
