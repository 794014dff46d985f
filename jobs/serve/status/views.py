"""Deployments as a user sees them in a terminal."""

import shlex
import time
from datetime import timedelta

from rich.text import Text

from ....core.errors import SlurmError
from ....core.files import encode_json
from ....core.records import ROUTER
from ....core.rundir import RunDirectory
from ....core.spec.deployment import DeploymentSpec
from ...terminal.console import stderr, stdout
from ...terminal.table import text_table
from ...terminal.text import shown
from ..site import remarks
from .reasons import News, ended_lines, reason_lines, worker_lines
from .state import DeploymentView, WorkerView
from .status import look, until_ready
from .worker_state import date_time

_COLOURS = {
    "ready": "green", "asleep": "blue", "draining": "magenta",
    "gone": "red", "failed": "red", "damaged": "red", "unreachable": "red",
}  # fmt: skip
_SHOWN_DECISIONS = 3
_WAKES_FOR = {
    False: "the next request starts a worker",
    True: "a batch, or another request that no other pool may take, starts workers in the holes of the schedule",
}
_WITHOUT_JOBS = ("stopped", "damaged", "unknown")


def print_site_remarks(spec: DeploymentSpec) -> None:
    """Print what will not work here of a deployment, as far as the doctor has seen that."""
    for said in remarks(spec):
        stderr.print(Text(shown(f"warning: {said}")), soft_wrap=True)


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
    news = News()
    with stderr.status("waiting for the scheduler") as line:

        def show(seen: DeploymentView) -> None:
            line.update(Text(shown(_waiting_for(seen))))
            for text in news.lines(seen):
                stderr.print(Text(shown(text)), soft_wrap=True)  # whole lines, so that commands can be copied

        view = until_ready(run, show)
    ready = f" {view.ready_workers} of {len(view.workers)} workers"
    stdout.print(Text.assemble((f"{view.state:<16}", _COLOURS[view.state]), ready))
    if view.status_page:
        stdout.print(f"status page      {view.status_page}")
    stdout.print(f"export OPENAI_BASE_URL={view.endpoint}")
    stdout.print(f"export OPENAI_API_KEY=$(cat {shlex.quote(str(run.key_path))})")
    if run.read_spec().router.tls == "self_signed":
        stdout.print(f"export SSL_CERT_FILE={shlex.quote(str(run.router_authority_certificate_path))}")
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


def print_failures(run: RunDirectory, role: str | None) -> None:
    """Print why jobs of a deployment have failed, and what to change: those of one role, or all of them.

    Nothing where the scheduler does not answer: then nobody knows which have.
    """
    try:
        view = look(run)
    except SlurmError:
        return
    failed = [worker for worker in view.workers if worker.state == "gone"]
    said = {worker.id: reason_lines(worker.cause, worker.reason, worker.advice) for worker in failed}
    for pool in view.pools:
        said |= {one.id: reason_lines(one.cause, "", one.advice) for one in pool.ended}
    if view.state == "failed":
        said[ROUTER] = reason_lines(view.cause, view.reason, view.advice)
    for name, text in said.items():
        if role in (None, name):
            _print_lines(f"{name}: {text}")


def _print_view(view: DeploymentView) -> None:
    endpoint = shown(f"  {view.endpoint}") if view.endpoint else ""
    stdout.print(Text.assemble((shown(view.name), "bold"), "  ", _coloured(view.state), endpoint))
    if view.status_page:
        stdout.print(f"  status page: {shown(view.status_page)}")
    if view.fingerprint:
        stdout.print(f"  SHA-256 of its certificate: {shown(view.fingerprint)}")
    if reason := reason_lines(view.cause, view.reason, view.advice):
        _print_lines(f"  {reason}")
    if view.state == "failed":
        stdout.print(f"  it answers no requests any more; 'slurminfer stop {view.name}' ends what still runs")
    if view.state in _WITHOUT_JOBS:
        return
    table = text_table("worker", "job", "state", "slurm", "node", "in flight", "loaded in", "time left")
    answers = "" if view.endpoint is None else "answers" if view.router_answers else "silent"
    table.add_row("router", shown(_short(view.router_job)), answers, shown(view.router_scheduler))
    for worker in view.workers:
        table.add_row(*_cells(worker))
    stdout.print(table)
    for text in worker_lines(view):
        _print_lines(f"  {text}")
    for pool in view.pools:
        for text in ended_lines(pool):
            _print_lines(f"  {text}")
        if pool.is_asleep:
            _print_lines(f"  pool {pool.name}: asleep; {_WAKES_FOR[pool.is_backfill]}")
        elif pool.wanted == 0:
            _print_lines(f"  pool {pool.name}: no workers are wanted; 'slurminfer scale {view.name} {pool.name} auto'")
        if pool.harvest is not None:
            _print_lines(f"  {pool.harvest}")
        if pool.waits and pool.waits != view.reason:
            until = "" if pool.waits_until is None else f", until {date_time(pool.waits_until)}"
            _print_lines(f"  pool {pool.name}: {'no more workers' if pool.gave_up else 'waits'}: {pool.waits}{until}")
    if view.trouble:
        _print_lines(f"  the controller does nothing until this ends: {view.trouble}")
    for decision in view.decisions[-_SHOWN_DECISIONS:]:
        _print_lines(f"  {time.strftime('%H:%M:%S', time.localtime(decision.at))} {decision.text}")


def _print_lines(text: str) -> None:
    for line in text.splitlines():
        stdout.print(Text(shown(line)))


def _cells(worker: WorkerView) -> tuple[str | Text, ...]:
    return (
        shown(worker.id),
        shown(_short(worker.job)),
        _coloured(worker.state),
        shown(worker.scheduler),
        shown(worker.node),
        "" if worker.in_flight is None else str(worker.in_flight),
        _load(worker),
        "" if worker.seconds_left is None else str(timedelta(seconds=int(worker.seconds_left))),
    )


def _load(worker: WorkerView) -> str:
    if worker.load_s is None:
        return ""
    return f"{worker.load_s:.1f} s" + (f" ({worker.stage_s:.1f} s staging)" if worker.stage_s else "")


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
