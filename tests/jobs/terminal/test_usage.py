"""Command lines that make no sense, and the few that every user tries first: --version, -h, a command without words."""

import re
import sys
from pathlib import Path

import pytest

import slurminfer
from slurminfer import cli


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Runs `slurminfer WORDS`; the exit code, stdout and the lines of stderr."""
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(cli, "prepare", lambda: None)

    def called(*words):
        monkeypatch.setattr(sys, "argv", ["python -m slurminfer", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err.splitlines()

    return called


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_names_the_folder_and_the_python(call, option):
    code, out, err = call(option)
    folder = Path(slurminfer.__file__).parent
    assert (code, err) == (0, [])
    assert re.fullmatch(rf"slurminfer \d+\.\d+\.\d+ from {re.escape(str(folder))} \(Python 3\.\d+\.\d+\S*\)\n", out)


@pytest.mark.parametrize("words", [("-h",), ("--help",), ()])
def test_help_shows_the_ways_in_first_and_the_name_of_the_command(call, words):
    code, out, _ = call(*words)
    assert code == (0 if words else 2)
    assert "Usage: slurminfer [OPTIONS] COMMAND" in out
    panels = re.findall(r"─ (\w[\w ]*\w) ─", out)
    assert panels == ["Options", "Endpoints", "Batches", "Models", "The cluster"]


def test_a_short_help_option_works_for_commands_of_groups(call):
    code, out, _ = call("keys", "cpu", "add", "-h")
    assert code == 0
    assert "--requests-per-minute" in out


SERVE, KEYS = "slurminfer serve [OPTIONS] SPEC", "slurminfer keys [OPTIONS] NAME COMMAND [ARGS]..."
THERE_ARE = "(there are: add, set, list, revoke)"


@pytest.mark.parametrize(
    ("words", "wrong", "usage"),
    [
        (["serve"], "Missing argument 'SPEC'", SERVE),
        (["serve", "a.toml", "--wiat"], "No such option: --wiat (Possible options: --wait)", SERVE),
        (["batch", "in.jsonl"], "Missing argument 'INPUT'", "slurminfer batch run [OPTIONS] INPUT... OUTPUT"),
        (["--port"], "No such option: --port", "slurminfer [OPTIONS] COMMAND [ARGS]..."),
        (["keys", "cpu"], f"Missing command {THERE_ARE}", KEYS),
        (["keys", "add", "alice"], f"No such command 'alice' {THERE_ARE}", KEYS),
    ],
)
def test_a_wrong_command_line_is_one_line_and_the_form_it_should_have(call, words, wrong, usage):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert err[:2] == [f"error: {wrong}", f"usage: {usage}"]
    assert len(err) == 3 and err[2].endswith("--help' says more")


def test_a_command_that_is_misspelt_is_told_which_one_is_meant(call):
    code, _, err = call("serv")
    assert code == 2
    assert err[0].startswith("error: No such command 'serv'. Did you mean 'serve'? (there are: serve, status, ")


def test_an_error_of_ours_is_one_line_and_another_code(call):
    assert call("status", "nobody")[0] == 1


def test_what_a_terminal_would_obey_is_written_out(call):
    _, _, err = call("\x1b[2Jx")
    assert "\x1b" not in "".join(err)


@pytest.mark.parametrize("name", ["submitit", "slurminfer.jobs.nothing"])
def test_a_package_that_is_not_installed_is_named_and_a_fault_of_ours_is_not_hidden(monkeypatch, capsys, name):
    def lacks(**_):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(cli, "prepare", lambda: None)
    monkeypatch.setattr(cli, "app", lacks)
    with pytest.raises(ModuleNotFoundError if name.startswith("slurminfer") else SystemExit) as ended:
        cli.main()
    if isinstance(ended.value, SystemExit):
        assert ended.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: the Python package 'submitit' is not installed for {sys.executable}; ")
