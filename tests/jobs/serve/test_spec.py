"""Reading a spec as the commands do: whatever is wrong in it is refused before anything is submitted."""

import pytest
from typer.testing import CliRunner

from slurminfer.cli import app
from slurminfer.core.errors import SpecError
from slurminfer.jobs.serve.spec import read_spec

SPEC = "name = 'x'\n[model]\npath = 'demo'\n[[pool]]\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a spec file whose pool has these lines too."""
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    path = tmp_path / "spec.toml"

    def write(lines: str):
        path.write_text(SPEC + lines)
        return path

    return write


def test_a_spec_may_get_another_name(write):
    assert read_spec(write("workers = 2")).name == "x"
    assert read_spec(write("workers = 2"), "y").name == "y"
    with pytest.raises(SpecError, match=r"name = '\.\./y'"):
        read_spec(write("workers = 2"), "../y")


WRONG = [
    ("wrokers = 3", "pool[0].wrokers = 3: unknown key"),
    ("engine = 'ollama'", "pool[0].engine = 'ollama': expected one of: native, sglang, vllm"),
    ("nodes = 2", "pool[0].nodes = 2: so many nodes cannot share"),
    ("[router]\npolicy = 'magic'", "router.policy = 'magic': expected one of: least_loaded"),
    ("[speculative]\ndraft_tokens = 99", "speculative.draft_tokens = 99: expected at most 15"),
]


@pytest.mark.parametrize(("lines", "said"), WRONG)
@pytest.mark.parametrize("name", [None, "y"])
def test_what_is_wrong_is_refused(write, lines, said, name):
    with pytest.raises(SpecError) as caught:
        read_spec(write(lines), name)
    assert said in str(caught.value)


@pytest.mark.parametrize(("lines", "said"), WRONG)
def test_every_command_that_takes_a_spec_refuses_it(write, tmp_path, lines, said):
    path = str(write(lines))
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a"}\n')
    for words in (
        ["serve", path, "--local", "--dry-run"],
        ["batch", str(source), "out.jsonl", "--spec", path, "--local"],
    ):
        done = CliRunner().invoke(app, words)
        assert isinstance(done.exception, SpecError)
        assert said in str(done.exception)
