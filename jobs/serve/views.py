"""Deployments as a user sees them in a terminal."""

import shlex
from datetime import timedelta

from rich.text import Text

from ...core.files import encode_json
from ...core.rundir import RunDirectory
from ..terminal.console import stderr, stdout
from ..terminal.table import text_table
from ..terminal.text import shown
from .status import DeploymentView, WorkerView, until_ready

_COLOURS = {
    "ready": "green", "gone": "red", "failed": "red", "damaged": "red", "unreachable": "red", "draining": "magenta",
}  # fmt: skip
_WITHOUT_JOBS = ("stopped", "damaged", "unknown")


def print_submitted(run: RunDirectory) -> None:
    """Print the jobs of a deployment that was just submitted, and how to look at it."""
    deployment = run.read_deployment()
    if deployment is None:
        return
    for job in deployment.jobs:
        stdout.print(f"{job.role:<16} {deployment.launcher} job {_short(job.id)}")
    stdout.print(f"run directory    {run.path}")
    stdout.print(f"look with        slurminfer status {run.path.name}")


def wait_until_ready(run: RunDirectory) -> DeploymentView:
    """Wait with a line that says for what; then print how to reach the endpoint. Raises EngineError where it fails."""
    with stderr.status("waiting for the scheduler") as line:
        view = until_ready(run, lambda seen: line.update(Text(shown(_waiting_for(seen)))))
    ready = f"            {view.ready_workers} of {len(view.workers)} workers"
    stdout.print(Text.assemble(("ready", _COLOURS["ready"]), ready))
    stdout.print(f"export OPENAI_BASE_URL={view.endpoint}")
    stdout.print(f"export OPENAI_API_KEY=$(cat {shlex.quote(str(run.key_path))})")
    return view


def print_views(views: list[DeploymentView], as_json: bool) -> None:
    """Print deployments as tables, or as a JSON list."""
    if as_json:
        print(encode_json(views), end="")
        return
    if not views:
        stdout.print("no deployments")
    for view in views:
        _print_view(view)


def _print_view(view: DeploymentView) -> None:
    endpoint = shown(f"  {view.endpoint}") if view.endpoint else ""
    stdout.print(Text.assemble((shown(view.name), "bold"), "  ", _coloured(view.state), endpoint))
    if view.fingerprint:
        stdout.print(f"  SHA-256 of its certificate: {shown(view.fingerprint)}")
    if view.reason:
        stdout.print(f"  {view.reason}")
    if view.state in _WITHOUT_JOBS:
        return
    table = text_table("worker", "job", "state", "slurm", "node", "in flight", "loaded in", "time left")
    answers = "" if view.endpoint is None else "answers" if view.router_answers else "silent"
    table.add_row("router", shown(_short(view.router_job)), answers, shown(view.router_scheduler))
    for worker in view.workers:
        table.add_row(*_cells(worker))
    stdout.print(table)
    for worker in view.workers:
        if worker.reason and worker.reason != view.reason:
            stdout.print(f"  {worker.id}: {worker.reason}")


def _cells(worker: WorkerView) -> tuple[str | Text, ...]:
    return (
        shown(worker.id),
        shown(_short(worker.job)),
        _coloured(worker.state),
        shown(worker.scheduler),
        shown(worker.node),
        "" if worker.in_flight is None else str(worker.in_flight),
        "" if worker.load_s is None else f"{worker.load_s:.1f} s",
        "" if worker.seconds_left is None else str(timedelta(seconds=int(worker.seconds_left))),
    )


def _short(job: str) -> str:
    return job.partition("@")[0]


def _coloured(state: str) -> Text:
    return Text(state, _COLOURS.get(state, "yellow"))


def _waiting_for(view: DeploymentView) -> str:
    counts: dict[str, int] = {}
    for worker in view.workers:
        counts[worker.state] = counts.get(worker.state, 0) + 1
    workers = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return f"router {view.router_scheduler.lower()}, workers: {workers}"
