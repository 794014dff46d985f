"""All that a driver shows and keeps of its work while it runs: progress, history, the router's page, the summary."""

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from ....core.errors import BatchError, SlurminferError
from ....core.rundir import RunDirectory
from ....core.site.prices import read_prices
from ...terminal.console import stderr
from . import history, picture
from .consumption import Consumption, consumed
from .forecast.prediction import Prediction, of_sample, with_resources, write_prediction
from .forecast.sampled import LEAST_ROWS, forecast
from .history import History, Span
from .pace import Pace
from .progress import Show, shown_progress
from .rates import TokenRates
from .resources import resources
from .summary import Summary, summary_of, what_was_achieved, write_summary
from .tally import BatchState, Timing
from .telling import Telling

_log = logging.getLogger(__name__)


class Report:
    """What one driver reports. `see` may be called from an event loop: files are written in a thread."""

    def __init__(self, output: Path, ledger: Path, run: RunDirectory | None, show: Show) -> None:
        self._output, self._ledger, self._run, self._show = output, ledger, run, show
        driver = f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._history = History(ledger, driver)
        self._telling = None if run is None else Telling(run, output, driver)
        self._pace, self._rates = Pace(), TokenRates()
        self._thread = ThreadPoolExecutor(1, "batch-report")
        self._writing: Future[None] | None = None
        self._complained = False
        self.state: BatchState | None = None  # the last one

    def see(self, state: BatchState) -> None:
        """Take a look that the driver tells of, about every second."""
        self.state = state
        self._pace.see(state.elapsed_s, state.settled)
        self._rates.see(state)
        self._show(state, self._rates, self._pace.left(state.left))
        if self._writing is None or self._writing.done():  # else the disk is slow: the next look has all of this one
            self._writing = self._thread.submit(self._keep, state)

    def close(self) -> None:
        """Keep what was not kept yet, and take the batch from the router's page."""
        self._thread.shutdown()
        if self.state is not None:
            self._keep(self.state, is_last=True)
        if self._telling is not None:
            self._telling.end()

    def _keep(self, state: BatchState, *, is_last: bool = False) -> None:
        try:
            self._history.note(state, is_last=is_last)
        except BatchError as error:
            if not self._complained:
                _log.warning("the history of throughput has a gap: %s", error)
            self._complained = True
        if self._telling is not None and not is_last:
            self._telling.tell(state, self._pace, self._rates)


@contextmanager
def batch_report(output: Path, ledger: Path, run: RunDirectory | None, console: Console = stderr) -> Iterator[Report]:
    """A report for as long as a driver works, with progress on `console`.

    Args:
        output: of the batch.
        ledger: the folder of its ledger, which the driver makes.
        run: the deployment that it runs through; None for any other endpoint.
        console: where progress is shown.
    """
    with shown_progress(console) as show:
        report = Report(output, ledger, run, show)
        try:
            yield report
        finally:
            report.close()


def finish(
    output: Path, ledger: Path, run: RunDirectory | None, counts: tuple[int, int, int]
) -> tuple[Summary, Path] | None:
    """Write the summary of all runs and drivers; it, and where the picture is. None where no driver has done anything.

    Args:
        output: of the batch.
        ledger: the folder of its ledger.
        run: the deployment that it ran through, if any.
        counts: rows, answered ones, and failed ones.

    Raises BatchError.
    """
    histories = history.read(ledger)
    spans = history.together(histories, picture.BUCKETS)
    summary = summary_of(
        output,
        counts,
        histories,
        achieved=what_was_achieved(ledger, histories),
        used=None if run is None else _used(run, [span for spans in histories for span in spans]),
    )
    return None if summary is None else (summary, write_summary(ledger, summary, spans))


def predict_by_sample(
    ledger: Path, run: RunDirectory | None, timings: Sequence[Timing], rows: int, clock: Callable[[], float] = time.time
) -> Prediction | None:
    """What a sample says of the rows that are not settled yet; kept in the ledger. None where it was too small.

    Raises BatchError.
    """
    found = forecast(timings, rows)
    if found is None:
        return None
    prediction = of_sample(found, rows, len(timings), now=clock())
    if run is not None:
        prediction = with_resources(prediction, resources(run.read_spec(), _workers(run), read_prices()))
    write_prediction(ledger, prediction)
    return prediction


TOO_SMALL = f"a sample of fewer than {LEAST_ROWS} answered rows predicts nothing"


def _workers(run: RunDirectory) -> dict[str, int] | None:
    """Ready workers by pool, as their records say; None where they cannot be read."""
    try:
        pools = [record.pool for record in run.read_workers() if record.state == "ready"]
    except SlurminferError:
        return None
    return {pool: pools.count(pool) for pool in pools}


def _used(run: RunDirectory, spans: Sequence[Span]) -> Consumption | None:
    try:
        return consumed(run, spans)
    except SlurminferError as error:
        _log.warning("hours and cost are not known: %s", error)
        return None
