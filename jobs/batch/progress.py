"""A batch's progress for a person: a bar in a terminal, a line now and then in a job's log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .tally import BatchState

_LINE_INTERVAL_S = 30.0


@contextmanager
def batch_progress(console: Console | None = None) -> Iterator[Callable[[BatchState], None]]:
    """What `run_batch` wants to report to; by default on standard error."""
    console = console or Console(stderr=True, highlight=False)
    if console.is_terminal:
        with _bar(console) as show:
            yield show
    else:
        yield _Lines(console)


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[BatchState], None]]:
    columns = (TextColumn("batch"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("")

        def show(state: BatchState) -> None:
            settled = state.done + state.failed
            bar.update(task, completed=settled, total=state.total, description=_figures(state))

        yield show


class _Lines:
    """One line every half minute, and one at the end."""

    def __init__(self, console: Console) -> None:
        self._console, self._last = console, -_LINE_INTERVAL_S

    def __call__(self, state: BatchState) -> None:
        settled, now = state.done + state.failed, time.monotonic()
        if now - self._last >= _LINE_INTERVAL_S or settled == state.total:
            self._last = now
            self._console.print(f"batch {settled}/{state.total} {_figures(state)}")


def _figures(state: BatchState) -> str:
    left = "" if state.left_s is None else f", {timedelta(seconds=round(state.left_s))} left"
    failed = f", {state.failed} failed" if state.failed else ""
    return f"{state.tokens_per_s:,.0f} tokens/s{left}{failed}"
