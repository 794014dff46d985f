"""How AutoAWQ's process is started, watched and ended; a shell script stands for it."""

import re
import tomllib
from pathlib import Path

import pytest

from slurminfer.core.errors import CommandError, ModelError
from slurminfer.quant.legacy.autoawq import interpreter, quantize

pytestmark = pytest.mark.process

HOUSE = Path(__file__).parents[3]
SAMPLES = [[1, 2, 3]]
# $1 is the script, $2 the model, $3 the directory to write.
LAYER = """echo '{"layer": 1, "layers": 2, "seconds": 1.5}'"""


@pytest.fixture
def stand_in(tmp_path):
    """Makes an interpreter of shell commands that writes a file into the output directory first."""

    def make(*commands: str) -> Path:
        path = tmp_path / "python"
        path.write_text("\n".join(["#!/bin/sh", 'mkdir "$3" && echo "$@" > "$3/arguments"', *commands]))
        path.chmod(0o755)
        return path

    return make


def ignore(stage: str, done: int, total: int) -> None:
    pass


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", line)[0] for line in requirements if line and not line.startswith("#")}


def test_the_legacy_environment_has_what_slurminfer_needs():
    ours = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["dependencies"]
    assert _names(ours) <= _names((HOUSE / "requirements/legacy.txt").read_text().splitlines())


def test_a_missing_interpreter_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_LEGACY_PYTHON", str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="nowhere is not there: `make legacy`"):
        interpreter()


def test_the_argument_comes_before_the_variable_and_the_variable_before_our_own(tmp_path, monkeypatch, stand_in):
    named = stand_in()
    monkeypatch.setenv("SLURMINFER_LEGACY_PYTHON", str(named))
    assert interpreter() == named
    with pytest.raises(ModelError, match="other"):
        interpreter(tmp_path / "other")


def test_progress_counts_layers_and_the_result_gets_its_name_at_the_end(tmp_path, stand_in):
    out, seen = tmp_path / "out", []

    def progress(stage: str, done: int, total: int) -> None:
        assert not out.exists()
        seen.append((stage, done, total))

    quantize(tmp_path / "model", out, SAMPLES, 64, progress, stand_in(LAYER, """echo '{"peak_bytes": 3}'"""))
    assert seen == [("quantize", 1, 2)]
    assert "--group-size 64" in (out / "arguments").read_text()
    assert list(tmp_path.glob(".out*")) == []


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        (["echo 'ValueError: no such thing' >&2", "echo later >&2", "exit 3"], "AutoAWQ failed: ValueError: no such t"),
        (["kill -9 $$"], r"AutoAWQ failed: killed by SIGKILL \(out of memory\?\)"),
    ],
)
def test_a_failure_names_its_cause_and_leaves_nothing(tmp_path, stand_in, commands, message):
    with pytest.raises(CommandError, match=message):
        quantize(tmp_path / "model", tmp_path / "out", SAMPLES, 64, ignore, stand_in(LAYER, *commands))
    assert [path.name for path in tmp_path.iterdir()] == ["python"]


def test_an_interrupted_process_is_killed_and_leaves_nothing(tmp_path, stand_in):
    def interrupt(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    process = stand_in(f"echo $$ > {tmp_path}/pid", LAYER, "exec sleep 600")
    with pytest.raises(KeyboardInterrupt):
        quantize(tmp_path / "model", tmp_path / "out", SAMPLES, 64, interrupt, process)
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
    assert {path.name for path in tmp_path.iterdir()} == {"python", "pid"}


def test_an_existing_directory_is_not_touched(tmp_path, stand_in):
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="out exists already"):
        quantize(tmp_path / "model", tmp_path / "out", SAMPLES, 64, ignore, stand_in())


@pytest.mark.parametrize("samples", [[], [[]]])
def test_no_samples(tmp_path, stand_in, samples):
    with pytest.raises(ModelError, match="samples are empty"):
        quantize(tmp_path / "model", tmp_path / "out", samples, 64, ignore, stand_in())
