"""Progress of a batch on standard error: two lines that stay in place in a terminal, a line now and then in a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from ...terminal.console import stderr
from ...terminal.progress import count_progress
from ...terminal.text import shown
from .interval import Interval
from .rates import TokenRates
from .tally import BatchState
from .words import about, count_per_s, percent, plural

Show = Callable[[BatchState, TokenRates, Interval | None], None]


@contextmanager
def shown_progress(console: Console = stderr) -> Iterator[Show]:
    """Show each look that is given: the state, tokens/s of late, and seconds left where they are known."""
    if not console.is_terminal:
        with count_progress("batch", console) as lines:
            yield lambda state, rates, left: lines(
                state.settled, state.total, ", ".join([*figures(state, rates), time_words(state, left)])
            )
        return
    bar = Progress(
        TextColumn("batch"), BarColumn(bar_width=28), MofNCompleteColumn(), TextColumn("{task.description}"),
        console=console,
    )  # fmt: skip
    task = bar.add_task("", total=None)
    with Live(Group(bar), console=console, refresh_per_second=4) as live:

        def show(state: BatchState, rates: TokenRates, left: Interval | None) -> None:
            bar.update(task, completed=state.settled, total=state.total, description=shown(time_words(state, left)))
            line = Text(shown("  " + " · ".join(figures(state, rates))), style="dim", no_wrap=True, overflow="ellipsis")
            live.update(Group(bar, line))

        yield show


def figures(state: BatchState, rates: TokenRates) -> list[str]:
    """What is worth knowing besides rows and time, the most important first: a narrow terminal cuts the rest. Pure."""
    found = [f"{plural(state.failed, 'row')} failed"] if state.failed else []
    found.append(f"tokens/s: {count_per_s(rates.completion)} out, {count_per_s(rates.prompt)} in")
    if state.cached_tokens and state.prompt_tokens:
        found.append(f"{percent(state.cached_tokens / state.prompt_tokens)} cached")
    if state.workers is not None:
        found.append(f"{plural(state.workers, 'worker')} ready")
    wanted = f" of {state.wanted_in_flight:,}" if state.wanted_in_flight > state.in_flight else ""
    found.append(f"{state.in_flight:,}{wanted} in flight")
    if state.retries:
        found.append(f"{state.retries:,} sent again")
    if state.drivers > 1:
        found.append(plural(state.drivers, "driver"))
    return found


def time_words(state: BatchState, left: Interval | None) -> str:
    """How long it still takes, in words. Pure."""
    if not state.left:
        return "writing the output"
    return "time left not known yet" if left is None else f"{about(left)} left"
