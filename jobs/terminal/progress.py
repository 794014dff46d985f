"""Progress of long work on standard error: a bar in a terminal, a line now and then in a job's log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ...quant.progress import Progress as ModelProgress
from .console import stderr
from .text import shown

_LINE_INTERVAL_S = 30.0
_COUNTABLE = 10_000  # layers are; bytes are better told in percent

CountProgress = Callable[[int, int, str], None]  # what is done, of how many, and further figures as text


@contextmanager
def model_progress(console: Console = stderr) -> Iterator[ModelProgress]:
    """Show work on a model: a bar per stage in a terminal; in a log, lines with the time that a stage still takes."""
    if not console.is_terminal:
        yield _StageLines(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                for earlier in tasks.values():  # a stage that has begun means that the ones before it are over
                    bar.update(earlier, completed=bar.tasks[earlier].total)
                tasks[stage] = bar.add_task(shown(stage))
            bar.update(tasks[stage], completed=done, total=total or None)

        yield show


@contextmanager
def count_progress(name: str, console: Console = stderr) -> Iterator[CountProgress]:
    """Show how many items are done of how many, with further figures: one bar in a terminal, lines in a log."""
    if not console.is_terminal:
        lines = _Lines(console)
        yield lambda done, total, figures: lines.show(name, done, total, f"{name} {done}/{total} {figures}")
        return
    columns = (
        TextColumn(name, markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("")
        yield lambda done, total, figures: bar.update(task, completed=done, total=total, description=shown(figures))


def time_left(seconds: float) -> str:
    """The end of a progress line that says how long the work still takes, such as ", 0:04:00 left"."""
    return f", {timedelta(seconds=round(seconds))} left"


class _Lines:
    """Prints a line when a stage begins, every half minute, and when the stage is done."""

    def __init__(self, console: Console) -> None:
        self._console, self._stage, self._last, self._is_done = console, "", 0.0, False

    def show(self, stage: str, done: int, total: int, line: str) -> None:
        """Print the line if it is time for one."""
        now, is_done = time.monotonic(), done == total
        if stage != self._stage or now - self._last >= _LINE_INTERVAL_S or (is_done and not self._is_done):
            self._stage, self._last, self._is_done = stage, now, is_done
            self._console.print(line, soft_wrap=True)  # a line of a log stays one


class _StageLines:
    """Lines of work on a model, each with its stage, how much is done, and the time left at the pace so far."""

    def __init__(self, console: Console) -> None:
        self._lines = _Lines(console)
        self._stage, self._began, self._first = "", 0.0, 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self._stage, self._began, self._first = stage, time.monotonic(), done
        self._lines.show(stage, done, total, stage + self._figures(done, total))

    def _figures(self, done: int, total: int) -> str:
        if not total:
            return ""
        share = f" {done}/{total}" if total < _COUNTABLE else f" {done / total:.0%}"
        if not self._first < done < total:
            return share
        return share + time_left((time.monotonic() - self._began) / (done - self._first) * (total - done))
