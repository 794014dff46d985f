"""`slurminfer batch status`: how far a batch is, and who works on it."""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ....core.errors import BatchError
from ....core.files import encode_json
from ...launch.launchers import launcher_named
from ...terminal.console import stdout
from ..ledger.look import DriverSign, LedgerLook, look
from ..report import history
from ..report.history import Span
from ..report.interval import Interval
from ..report.remaining import seconds_left
from ..report.words import about
from ..submit.folder import JobsFolder
from ..submit.view import JobView, lines, look_at_jobs


class DriverView(msgspec.Struct, frozen=True, kw_only=True):
    """A process that works on the batch, or did. Times are Unix seconds."""

    host: str
    process: str
    job: str | None
    started_at: float
    seen_at: float
    is_living: bool


class BatchView(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a batch. `state` is done, running, waiting (for its jobs, or for workers of its own) or stopped."""

    output: str
    state: str
    is_done: bool  # all rows are settled, and nobody is at work on the output
    rows: int
    answered: int
    failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    tokens_per_s: float | None = None  # generated, by the drivers that are at work, each since it began
    left_s: float | None = None  # until the end, at the pace of late
    left_low_s: float | None = None  # a range that has the true time in 90 of 100 cases
    left_high_s: float | None = None
    drivers: tuple[DriverView, ...] = ()
    jobs: tuple[JobView, ...] = ()  # of the latest --submit
    deployments: tuple[str, ...] = ()  # that the batch serves itself


def print_status(output: Path, as_json: bool) -> None:
    """Print one look at the batch of an output. Raises BatchError where there is none."""
    folder = JobsFolder(output)
    folder.require()
    view = look_at_batch(folder)
    if as_json:
        print(encode_json(view), end="")
    else:
        for line in words(view, time.time()):
            stdout.print(line)


def look_at_batch(folder: JobsFolder) -> BatchView:
    """The batch of an output, from its ledger and from Slurm. Raises BatchError, RunDirectoryError."""
    jobs = look_at_jobs(folder, launcher_named("slurm")) if folder.was_submitted else []
    served = [run.path.name for run in folder.deployments.living()]
    try:
        found = look(folder.ledger)
    except BatchError:
        if not jobs and not served:
            raise
        found = None  # its first driver has not begun yet
    return view_of(folder.output, found, jobs, served, history.read(folder.ledger))


def view_of(
    output: Path,
    found: LedgerLook | None,
    jobs: list[JobView],
    served: list[str],
    histories: Sequence[Sequence[Span]] = (),
) -> BatchView:
    """The same from what was read. Pure."""
    drivers = found.drivers if found else ()
    is_settled = found is not None and found.is_settled
    works = any(driver.is_living for driver in drivers)
    waits = any(job.is_living for job in jobs) or (found is None and bool(served))  # for its first worker
    state = "running" if works else "done" if is_settled else "waiting" if waits else "stopped"
    counts = found.counts if found else None
    left = counts.rows - counts.answered - counts.failed if counts else 0
    began = min((driver.started_at for driver in drivers if driver.is_living), default=None)
    left_s = None if began is None else seconds_left(histories, began, left)
    return BatchView(
        output=str(output),
        state=state,
        is_done=is_settled and not works,
        rows=counts.rows if counts else 0,
        answered=counts.answered if counts else 0,
        failed=counts.failed if counts else 0,
        prompt_tokens=counts.prompt_tokens if counts else 0,
        cached_tokens=counts.cached_tokens if counts else 0,
        completion_tokens=counts.completion_tokens if counts else 0,
        tokens_per_s=_tokens_per_s(drivers) if works else None,
        left_s=None if left_s is None else left_s.likely,
        left_low_s=None if left_s is None else left_s.low,
        left_high_s=None if left_s is None else left_s.high,
        drivers=tuple(_driver(driver) for driver in drivers),
        jobs=tuple(jobs),
        deployments=tuple(served),
    )


def words(view: BatchView, now: float) -> list[str]:
    """The look for a person, line by line. Pure.

    Args:
        view: the look.
        now: Unix time of it.
    """
    failed = f", {view.failed:,} failed" if view.failed else ""
    # Rows are counted by the first driver, so an input without rows is told apart by being done.
    rows = f"{view.answered:,} of {view.rows:,} answered{failed}" if view.rows or view.is_done else "not counted yet"
    told = [
        f"{view.output}: {view.state}",
        f"rows      {rows}",
        f"tokens    {view.prompt_tokens:,} in ({view.cached_tokens:,} cached), {view.completion_tokens:,} out",
    ]
    if view.tokens_per_s is not None:
        told.append(f"pace      {view.tokens_per_s:,.0f} tokens/s")
    if view.state == "running" and view.answered + view.failed < view.rows:
        told.append(f"left      {_left(view)}")
    told += [f"driver    {_driver_words(driver, now)}" for driver in view.drivers if driver.is_living]
    told += [f"job       {line}" for line in lines(view.jobs)]
    told += [f"serves    deployment '{name}'; see 'slurminfer status {name}'" for name in view.deployments]
    if view.state == "stopped":
        told.append("nobody is at work on it: the same 'slurminfer batch' command goes on")
    return told


def _left(view: BatchView) -> str:
    if view.left_s is None or view.left_low_s is None or view.left_high_s is None:
        return "not known yet"
    return about(Interval(low=view.left_low_s, likely=view.left_s, high=view.left_high_s))


def _tokens_per_s(drivers: Sequence[DriverSign]) -> float:
    """What those at work generate together in a second, each since it began."""
    working = (driver for driver in drivers if driver.is_living and driver.seen_at > driver.started_at)
    return sum(driver.completion_tokens / (driver.seen_at - driver.started_at) for driver in working)


def _driver(driver: DriverSign) -> DriverView:
    return DriverView(
        host=driver.host,
        process=driver.process,
        job=driver.job,
        started_at=driver.started_at,
        seen_at=driver.seen_at,
        is_living=driver.is_living,
    )


def _driver_words(driver: DriverView, now: float) -> str:
    job = f", Slurm job {driver.job}" if driver.job else ""
    seen_s = max(0.0, now - driver.seen_at)
    return f"process {driver.process.partition('@')[0]} on {driver.host}{job}, seen {seen_s:.0f} s ago"
