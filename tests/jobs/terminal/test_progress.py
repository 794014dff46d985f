"""What a job's log says of work on a model."""

import pytest

from slurminfer.jobs.terminal.progress import model_progress


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when the test says so."""
    now = [1000.0]
    monkeypatch.setattr("slurminfer.jobs.terminal.progress.time.monotonic", lambda: now[0])
    return now


def test_a_line_at_the_beginning_now_and_then_and_at_the_end(clock, capsys):
    with model_progress() as progress:
        for done in range(31):
            progress("quantize", done, 30)
            clock[0] += 10
    assert capsys.readouterr().err.splitlines() == [
        "quantize 0/30",
        *(
            f"quantize {done}/30, 0:0{(30 - done) * 10 // 60}:{(30 - done) * 10 % 60:02} left"
            for done in range(3, 30, 3)
        ),
        "quantize 30/30",
    ]


def test_work_that_goes_on_where_it_was_does_not_count_what_was_there(clock, capsys):
    with model_progress() as progress:
        progress("quantize", 20, 30)
        clock[0] += 60
        progress("quantize", 22, 30)
    assert capsys.readouterr().err.splitlines() == ["quantize 20/30", "quantize 22/30, 0:04:00 left"]


def test_bytes_are_told_in_percent_and_what_cannot_be_counted_by_name(clock, capsys):
    with model_progress() as progress:
        progress("download", 0, 92_871_040)
        progress("download", 92_871_040, 92_871_040)
        progress("read", 0, 0)
    assert capsys.readouterr().err.splitlines() == ["download 0%", "download 100%", "read"]


def test_the_end_of_a_stage_is_told_once(clock, capsys):
    with model_progress() as progress:
        for done in (0, 4, 4, 4):
            progress("convert", done, 4)
            clock[0] += 1
        progress("convert", 0, 4)
    assert capsys.readouterr().err.splitlines() == ["convert 0/4", "convert 4/4"]
