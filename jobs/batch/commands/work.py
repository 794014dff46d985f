"""One driver's work on a batch: at a terminal, or in a job."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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
from ..report.tally import BatchState
from ..submit.folder import JobsFolder


def work(batch: Batch, key: str | None, returns: Callable[[], bool] = bool) -> int:
    """Do what is left of the batch, and print what a person wants to see of it; how many rows have failed.

    Args:
        batch: what is to be done.
        key: of `batch.endpoint.url`.
        returns: asked at the end: whether this driver was told to end, and will be started again.

    Raises BatchError, and what serving a spec raises.
    """
    latest = Latest()
    with _endpoint(batch, key, returns, latest) as (endpoint, harvested):
        with batch_progress() as show:

            def progress(state: BatchState) -> None:
                latest.state = state
                show(state)

            summary = run_batch(options_of(batch, endpoint), progress)
        lines = harvested()
    _print(summary)
    for line in lines:
        stdout.print(str(line))
    return summary.failed
