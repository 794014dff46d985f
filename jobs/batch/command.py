"""`slurminfer batch`: where the endpoint comes from, and what a person sees of the batch."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.text import Text

from ...core.errors import BatchError, RunDirectoryError, UsageError
from ...core.rundir import RunDirectory
from ...slurm.ending import Endings
from ..launch.launchers import launcher_here
from ..receipt.harvest import HarvestLine, harvest
from ..serve.deployment import start, stop
from ..serve.failed import require_not_failed
from ..serve.router_link import router_link
from ..serve.spec import read_spec
from ..serve.status import look
from ..serve.views import print_submitted, wait_until_ready
from ..terminal.console import stderr, stdout
from ..terminal.progress import count_progress, time_left
from ..terminal.text import shown
from .driver.driver import PATIENCE_S, BatchOptions, BatchSummary, run_batch
from .driver.endpoint import Address, check_url
from .report.tally import BatchState

_TERMINATED = 128 + signal.SIGTERM
_LOOK_EVERY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class EndpointChoice:
    """The endpoint to use: exactly one of a spec to serve meanwhile, a running deployment, and a URL."""

    spec: Path | None
    run: str | None
    endpoint: str | None
    key: str | None
    local: bool

    def check(self) -> None:
        """Raise UsageError where none or several are given, or --local goes with none of them."""
        given = [name for name in ("spec", "run", "endpoint") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(f"expected one of --spec, --run and --endpoint; got {', '.join(given) or 'none'}")
        if self.local and self.spec is None:
            raise UsageError("--local says how --spec is served; it means nothing with --run or --endpoint")
        if self.endpoint is not None:
            check_url(self.endpoint)


def run(source: Path, output: Path, where: EndpointChoice, **settings: Any) -> int:
    """Do the batch; how many lines failed. Settings: model, concurrency, and defaults for lines that do not say.

    Raises UsageError, BatchError, and what serving a spec raises.
    """
    where.check()
    options = {"model": settings.pop("model"), "concurrency": settings.pop("concurrency")}
    defaults = {name: value for name, value in settings.items() if value is not None}
    with _terminated_as_exit(), _endpoint(where) as (endpoint, harvested):
        with batch_progress() as progress:
            summary = run_batch(
                BatchOptions(input=source, output=output, defaults=defaults, **options, **endpoint), progress
            )
        lines = harvested()
    _print(summary)
    for line in lines:
        stdout.print(shown(str(line)), markup=False)
    return summary.failed


@contextmanager
def batch_progress(console: Console = stderr) -> Iterator[Callable[[BatchState], None]]:
    """Show how far a batch is, by what `run_batch` reports: lines settled, tokens/s, time left, lines failed."""
    with count_progress("batch", console) as show:
        yield lambda state: show(state.done + state.failed, state.total, _figures(state))


def _figures(state: BatchState) -> str:
    left = "" if state.left_s is None else time_left(state.left_s)
    failed = f", {state.failed} failed" if state.failed else ""
    return f"{state.tokens_per_s:,.0f} tokens/s{left}{failed}"


@contextmanager
def _endpoint(where: EndpointChoice) -> Iterator[tuple[dict[str, Any], Callable[[], list[HarvestLine]]]]:
    """The endpoint's part of the batch's options, for as long as the batch takes; and what backfill pools have served
    since it began."""
    if where.endpoint is not None:
        yield {"endpoint": Address(where.endpoint), "key": where.key}, list
    elif where.run is not None:
        run = RunDirectory.existing(where.run)
        yield options_for(run), _harvested_since_now(run)
    elif where.spec is not None:
        with _served(where.spec, where.local) as run:
            yield options_for(run), _harvested_since_now(run)


def _harvested_since_now(run: RunDirectory) -> Callable[[], list[HarvestLine]]:
    spec = run.read_spec()
    before = harvest(run, spec)
    return lambda: harvest(run, spec).since(before)


@contextmanager
def _served(spec_path: Path, local: bool) -> Iterator[RunDirectory]:
    """The spec as a deployment that is ready, and stopped at the end whatever happens."""
    run = start(read_spec(spec_path), launcher_here(local))
    try:
        print_submitted(run)
        wait_until_ready(run)
        yield run
    finally:
        stop(run)


def options_for(run: RunDirectory) -> dict[str, Any]:
    """The endpoint's part of the options of a batch through a deployment that runs.

    Raises EngineError where it has failed or is stopped, BatchError where it has no endpoint for long.
    """

    def locate() -> Address | None:
        """Where the router says that it listens now, and how it proves that it is ours."""
        try:
            link = router_link(run, run.read_router())
        except RunDirectoryError:  # a filesystem in trouble: it is where it was
            return None
        return Address(link.url, link.tls) if link else None

    return {
        "endpoint": _located(run, locate),
        "key": run.key(),
        "locate": locate,
        "waits_for_holes": any(pool.backfill for pool in run.read_spec().pool),
    }


def _located(run: RunDirectory, locate: Callable[[], Address | None]) -> Address:
    """Where the router is, waited for where it is away: starting, requeued, or moving to another node.

    Raises EngineError where the deployment has failed or is stopped, BatchError where it has no endpoint for
    PATIENCE_S.
    """
    endings, deadline, said = Endings(), time.monotonic() + PATIENCE_S, ""
    while (endpoint := locate()) is None:
        view = look(run, endings)
        require_not_failed(view)
        state = (
            f"deployment '{view.name}' has no endpoint now ({view.state}{f': {view.reason}' if view.reason else ''})"
        )
        if time.monotonic() > deadline:
            raise BatchError(f"{state}, and had none for {PATIENCE_S:g} s; see 'slurminfer status {view.name}'")
        if state != said:
            stderr.print(Text(shown(f"{state}; waiting for its router, for up to {PATIENCE_S:g} s")))
            said = state
        time.sleep(_LOOK_EVERY_S)
    return endpoint


@contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """SIGTERM, as scancel and preemption send it, ends the batch in order: results are flushed, jobs are stopped."""

    def leave(number: int, frame: FrameType | None) -> None:
        """End the process by an exception, so that every `finally` runs."""
        raise SystemExit(_TERMINATED)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _print(summary: BatchSummary) -> None:
    rate = summary.tokens / summary.elapsed_s if summary.elapsed_s else 0.0
    earlier = f" ({summary.skipped} of them by an earlier run)" if summary.skipped else ""
    stdout.print(f"{summary.done} of {summary.total} lines done{earlier}: {summary.output}")
    stdout.print(f"{summary.tokens} tokens in {summary.elapsed_s:.1f} s, {rate:.1f} tokens/s")
    if summary.failed:
        stdout.print(Text.assemble((f"{summary.failed} lines failed", "red"), shown(f": {summary.errors}")))
