"""One driver's work on a batch: at a terminal, or in a job."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from ....core.errors import BatchError
from ....core.rundir import RunDirectory
from ....core.spec.files import parse_spec
from ...launch.launchers import launcher_here
from ...receipt.harvest import HarvestLine, harvest
from ...terminal.console import stdout
from ..batch import Batch
from ..driver.address import Address
from ..driver.driver import run_batch
from ..driver.options import BatchOptions, BatchSummary
from ..endpoints.deployment import options_for
from ..endpoints.release import Release, released
from ..endpoints.served import served
from ..inputs.files import find
from ..ledger.look import is_answered, look
from ..report.forecast.prediction import lines as prediction_lines
from ..report.report import TOO_SMALL, batch_report, finish, predict_by_sample
from ..report.summary import lines as summary_lines
from ..report.tally import BatchState
from ..report.words import plural
from ..submit.folder import JobsFolder

_NOWHERE = Address("http://localhost:1")  # for a driver that has nothing to send


@dataclass
class _Latest:
    """What the driver has told last."""

    samples: int
    state: BatchState | None = field(default=None, init=False)

    @property
    def requests(self) -> int | None:
        """Requests that have no answer yet, of all drivers; None: the driver has not told anything yet."""
        state = self.state
        return None if state is None else self.samples * (state.total - state.answered - state.failed)


@dataclass(frozen=True, kw_only=True)
class _Endpoint:
    """The endpoint for as long as the batch takes."""

    options: dict[str, Any]  # the endpoint's part of the batch's options
    run: RunDirectory | None = None  # the deployment, where it is one
    harvested: Callable[[], list[HarvestLine]] = list  # what backfill pools have served since it began
    releasing: AbstractContextManager[None] = field(default_factory=nullcontext)  # around the driver's work


def work(batch: Batch, key: str | None, returns: Callable[[], bool] = bool) -> int:
    """Do what is left of the batch, and print what a person wants to see of it; how many rows have failed.

    Args:
        batch: what is to be done.
        key: of `batch.endpoint.url`.
        returns: asked at the end: whether this driver was told to end, and will be started again.

    Raises BatchError, and what serving a spec raises.
    """
    latest = _Latest(batch.parameters.samples)
    with _endpoint(batch, key, returns, latest) as endpoint:
        with endpoint.releasing, batch_report(batch.output.path, batch.ledger, endpoint.run) as report:

            def progress(state: BatchState) -> None:
                latest.state = state
                report.see(state)

            summary = run_batch(options_of(batch, endpoint.options), progress)
        lines = endpoint.harvested()
        failed = _print(batch, endpoint.run, summary, latest.state)
    for line in lines:
        stdout.print(str(line))
    return failed


def options_of(batch: Batch, endpoint: dict[str, Any]) -> BatchOptions:
    """What the driver is asked to do. Pure."""
    return BatchOptions(
        inputs=batch.inputs,
        output=batch.output,
        parameters=batch.parameters,
        format=batch.format,
        concurrency=batch.concurrency,
        limit=batch.limit,
        sample=batch.sample,
        **endpoint,
    )


@contextmanager
def _endpoint(batch: Batch, key: str | None, returns: Callable[[], bool], latest: _Latest) -> Iterator[_Endpoint]:
    where = batch.endpoint
    if where.url is not None:
        yield _Endpoint(options={"endpoint": Address(where.url), "key": key})
    elif where.run is not None:
        yield _of_deployment(RunDirectory.existing(where.run))
    elif where.spec is not None:
        own = JobsFolder(batch.output.path).deployments
        if is_answered(batch.ledger, lambda: find(batch.inputs, batch.format)):
            own.stop()  # what a driver has left that was killed at the end
            yield _Endpoint(options={"endpoint": _NOWHERE})
            return

        def stays() -> bool:
            return returns() or (latest.requests != 0 and _others_at_work(batch))

        with served(parse_spec(where.spec), launcher_here(where.local), own, stays) as run:
            release = Release(run, lambda: latest.requests)
            release.begin()
            yield _of_deployment(run, released(release))


def _others_at_work(batch: Batch) -> bool:
    """Whether another driver of the batch lives, which needs the deployment. This one has ended its ledger by now."""
    try:
        return any(driver.is_living for driver in look(batch.ledger).drivers)
    except BatchError:
        return False


def _of_deployment(run: RunDirectory, releasing: AbstractContextManager[None] | None = None) -> _Endpoint:
    spec = run.read_spec()
    before = harvest(run, spec)
    return _Endpoint(
        options=options_for(run),
        run=run,
        harvested=lambda: harvest(run, spec).since(before),
        releasing=releasing or nullcontext(),
    )


def _print(batch: Batch, run: RunDirectory | None, summary: BatchSummary, state: BatchState | None) -> int:
    """Say how it ended; how many rows have failed, of all drivers."""
    counts = _counts(batch, summary)
    found = finish(batch.output.path, batch.ledger, run, counts)
    if summary.output is not None:
        stdout.print(f"output      {summary.output}")
    if found is not None:
        written, picture = found
        for line in summary_lines(written):
            stdout.print(line)
        stdout.print(f"picture     {picture}")
    if summary.others and (summary.output is None or not _is_all(batch)):
        are = "is" if summary.others == 1 else "are"
        stdout.print(
            f"{plural(summary.others, 'other driver')} {are} at work on the rest; the last one writes the output"
        )
    if batch.sample is not None and state is not None:
        _print_prediction(batch, run, state)
    return counts[2]


def _counts(batch: Batch, summary: BatchSummary) -> tuple[int, int, int]:
    """Rows, answered ones, and failed ones: this driver's last word may lack what others have done since."""
    if not _is_all(batch):
        return summary.total, summary.answered, summary.failed
    counts = look(batch.ledger).counts
    return counts.rows, counts.answered, counts.failed


def _is_all(batch: Batch) -> bool:
    return batch.limit is None and batch.sample is None


def _print_prediction(batch: Batch, run: RunDirectory | None, state: BatchState) -> None:
    """What the sample that was just done says of all other rows."""
    counts = look(batch.ledger).counts
    rows = counts.rows - counts.answered - counts.failed
    if rows <= 0:
        return
    prediction = predict_by_sample(batch.ledger, run, state.timings, rows)
    stdout.print("")
    stdout.print("without --sample, the same command goes on with the rest; what is expected of that:")
    for line in [TOO_SMALL] if prediction is None else prediction_lines(prediction):
        stdout.print(line)
