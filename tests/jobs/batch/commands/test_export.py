"""Where `slurminfer batch export` writes, and where it does not."""

from pathlib import Path

import pytest

from slurminfer.core.errors import BatchError, UsageError
from slurminfer.jobs.batch.batch import Batch, EndpointChoice, encode_batch
from slurminfer.jobs.batch.commands import export as module
from slurminfer.jobs.batch.commands.export import export, partial_of
from slurminfer.jobs.batch.outputs.export import OutputOptions
from slurminfer.jobs.batch.submit.folder import JobsFolder


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """An output whose batch a driver at a terminal has begun; and what was written."""
    path, written = tmp_path / "out.jsonl", []
    batch = Batch(inputs=("/in",), output=OutputOptions(path=path), endpoint=EndpointChoice(run="demo"))
    JobsFolder(path).write_batch(batch, of_jobs=False)

    def write(asked, place):
        written.append((encode_batch(asked), place))
        return 7

    monkeypatch.setattr(module, "_write", write)
    return path, encode_batch(batch), written


def test_it_is_written_beside_the_output(begun, capsys):
    path, batch, written = begun
    export(path, None)
    assert written == [(batch, path.with_name("out.partial.jsonl"))]
    assert "7 rows: " in capsys.readouterr().out
    assert not JobsFolder(path).was_submitted


@pytest.mark.parametrize(
    ("name", "partial"),
    [
        ("a.b.parquet", "a.b.partial.parquet"), ("folder", "folder.partial"),
        ("a.jsonl.gz", "a.partial.jsonl.gz"), ("a.b.csv.zst", "a.b.partial.csv.zst"),
    ],
)  # fmt: skip
def test_its_name_keeps_the_ending_that_says_the_format(name, partial):
    assert partial_of(Path("x") / name) == Path("x") / partial


def test_it_replaces_nothing(begun, tmp_path):
    path, _, written = begun
    with pytest.raises(UsageError, match="expected another place than the output itself"):
        export(path, path)
    (tmp_path / "taken").touch()
    with pytest.raises(UsageError, match="taken': expected a name that nothing has yet"):
        export(path, tmp_path / "taken")
    assert written == []


def test_an_output_without_a_ledger_is_named(tmp_path):
    with pytest.raises(BatchError, match="no batch has written this output"):
        export(tmp_path / "out.jsonl", None)
