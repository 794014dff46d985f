"""What a person sees while a batch runs."""

import io

import pytest
from rich.console import Console

from slurminfer.jobs.batch.report.interval import Interval
from slurminfer.jobs.batch.report.progress import figures, shown_progress, time_words
from slurminfer.jobs.batch.report.rates import TokenRates
from slurminfer.jobs.batch.report.tally import BatchState
from slurminfer.jobs.batch.report.words import about, duration, figure


def state(**fields):
    given = {
        "total": 20_000, "answered": 5_000, "failed": 3, "elapsed_s": 60.0, "prompt_tokens": 60_000,
        "cached_tokens": 21_000, "completion_tokens": 30_000, "in_flight": 120, "wanted_in_flight": 160, "workers": 4,
        "retries": 7, "drivers": 2,
    }  # fmt: skip
    return BatchState(**{**given, **fields})


def rates_of(*states):
    rates = TokenRates()
    for each in states:
        rates.see(each)
    return rates


LEFT = Interval(low=1320.0, likely=1500.0, high=1860.0)


def test_the_figures_are_those_that_matter_first():
    assert figures(state(), rates_of(state())) == [
        "3 rows failed", "tokens/s: 500 out, 1,000 in", "35 % cached", "4 workers ready", "120 of 160 in flight",
        "7 sent again", "2 drivers",
    ]  # fmt: skip
    quiet = state(failed=0, cached_tokens=0, workers=None, in_flight=5, wanted_in_flight=5, retries=0, drivers=1)
    assert figures(quiet, rates_of(quiet)) == ["tokens/s: 500 out, 1,000 in", "5 in flight"]


def test_rates_are_those_of_late():
    looks = [state(elapsed_s=float(s), completion_tokens=10 * min(s, 50), prompt_tokens=0) for s in range(101)]
    assert rates_of(*looks[:41]).completion == pytest.approx(10)
    assert rates_of(*looks).completion == 0.0


def test_time_left_has_its_range():
    assert time_words(state(), LEFT) == "25 min (22 min to 31 min) left"
    assert time_words(state(), None) == "time left not known yet"
    assert time_words(state(answered=19_997), LEFT) == "writing the output"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (1500, "25 min"), (3 * 3600 + 1250, "3 h 20 min"),
     (200_000, "2 d 7 h")],
)  # fmt: skip
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_figures_have_about_three_digits():
    assert [figure(value) for value in (0, 0.0004, 0.042, 7.312, 82.51, 1204.4)] == [
        "0.000", "<0.001", "0.042", "7.31", "82.5", "1,204",
    ]  # fmt: skip
    assert about(Interval(low=5.0, likely=5.1, high=5.2)) == "5 s"


def test_a_terminal_has_two_lines_however_narrow_it_is():
    for width in (40, 80, 160):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=True, width=width, height=24, legacy_windows=False)
        with shown_progress(console) as show:
            show(state(), rates_of(state()), LEFT)
        last = screen.getvalue().rsplit("\x1b[2K", 1)[-1]
        assert last.count("\n") <= 2, f"{width}: {last!r}"


def test_a_log_has_whole_lines():
    log = io.StringIO()
    with shown_progress(Console(file=log, width=60)) as show:
        show(state(), rates_of(state()), LEFT)
        show(state(), rates_of(state()), LEFT)
    [line] = log.getvalue().splitlines()
    assert line.startswith("batch 5003/20000 3 rows failed, tokens/s: 500 out") and line.endswith("31 min) left")
