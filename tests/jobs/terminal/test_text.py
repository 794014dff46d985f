"""Foreign text on a terminal."""

import io

import pytest

from slurminfer.jobs.terminal.console import TextConsole
from slurminfer.jobs.terminal.progress import model_progress
from slurminfer.jobs.terminal.text import shown


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("50%\rdone\b\x00", r"50%\x0ddone\x08\x00"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("abc\u202ecba\u2066\u200f\u2028", r"abc\u202ecba\u2066\u200f\u2028"),
        ("\udcff", r"\udcff"),
        ("a\tb\nümläut 漢字 👩‍💻", "a\tb\nümläut 漢字 👩‍💻"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text, seen):
    assert shown(text) == seen


def test_the_consoles_print_strings_as_they_are():
    written = io.StringIO()
    TextConsole(file=written, force_terminal=True, width=80).print("[red]not markup[/red] :smile: \x1b[2J")
    assert written.getvalue() == "[red]not markup[/red] :smile: \\x1b[2J\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_shows_them_too(is_terminal):
    written = io.StringIO()
    console = TextConsole(file=written, force_terminal=is_terminal, width=80)
    with model_progress(console) as progress:
        progress("job pending (\x1b]0;x\x07[bold])", 1, 2)
    assert r"job pending (\x1b]0;x\x07[bold])" in written.getvalue()
