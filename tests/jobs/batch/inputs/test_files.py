"""Which files an argument names."""

import json
import os
from pathlib import Path

import pytest

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.inputs.files import find

from .conftest import rows_of, write_jsonl, write_parquet, write_stream


def names(*inputs, format=None):
    return [os.path.basename(file.path) for file in find([str(each) for each in inputs], format)]


def test_files_and_globs_in_order(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c.jsonl.gz", "d[1].txt", "e.PARQUET", "f.ndjson"):
        (tmp_path / name).write_bytes(b"x")
    assert names(tmp_path / "f.ndjson", tmp_path / "*.jsonl*") == ["f.ndjson", "a.jsonl", "b.jsonl", "c.jsonl.gz"]
    files = find([str(tmp_path / name) for name in ("c.jsonl.gz", "d[1].txt", "e.PARQUET")])
    assert [(file.format, file.compression) for file in files] == [("jsonl", "gz"), ("text", None), ("parquet", None)]
    assert all(file.path.is_absolute() and file.size == 1 and file.rows == 0 for file in files)


def test_relative_names_are_of_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert find(["a.jsonl"])[0].path == tmp_path / "a.jsonl"


def test_format_says_what_names_do_not(tmp_path):
    (tmp_path / "prompts").write_bytes(b"x")
    (tmp_path / "lines.gz").write_bytes(b"x")
    assert [(file.format, file.compression) for file in find([str(tmp_path / "lines.gz")], "csv")] == [("csv", "gz")]
    assert names(tmp_path / "prompts", format="text") == ["prompts"]
    with pytest.raises(BatchError, match=r"prompts: the name says no format: expected \.jsonl.*--format"):
        names(tmp_path / "prompts")
    with pytest.raises(BatchError, match=r"format = 'xml': expected one of jsonl"):
        names(tmp_path / "prompts", format="xml")


def test_a_directory_of_files(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("b.parquet", "a.parquet", "README.md", "_SUCCESS", ".hidden.parquet", "info.json"):
        (folder / name).write_bytes(b"x")
    assert names(folder) == ["a.parquet", "b.parquet"]
    (folder / "c.csv.gz").write_bytes(b"x")
    with pytest.raises(BatchError, match="several formats, csv, parquet"):
        names(folder)
    assert names(folder, format="csv") == ["c.csv.gz"]
    with pytest.raises(
        BatchError, match=r"no Parquet, JSONL or CSV files in this directory; it has the directories data"
    ):
        names(tmp_path)


def test_a_dataset_as_datasets_saves_it(tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    values = [{"prompt": str(number)} for number in range(150)]
    write_stream(folder / "data-00001-of-00002.arrow", values[:100])
    write_stream(folder / "data-00000-of-00002.arrow", values[100:])
    write_stream(folder / "cache-1.arrow", values)
    files = [{"filename": f"data-0000{number}-of-00002.arrow"} for number in (1, 0)]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_fingerprint": "a"}))
    (folder / "dataset_info.json").write_text("{}")
    assert [row.value for row in rows_of(folder)] == values
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(BatchError, match="has the splits train: name one of them"):
        names(tmp_path)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("{", "expected what `datasets` saves"),
        ("[]", "expected what `datasets` saves"),
        ('{"_data_files": []}', "a dataset without files"),
        ('{"_data_files": [{"filename": "../a.arrow"}]}', "expected the name of a file beside it"),
        ('{"_data_files": [{"filename": "a.arrow"}]}', r"a\.arrow: no such file"),
        ('{"_data_files": [{"filename": "a"}], "_indices_data_files": [{"filename": "i"}]}', "flatten_indices"),
    ],
)
def test_states_that_are_none(tmp_path, state, message):
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(BatchError, match=message):
        names(tmp_path)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    write_parquet(tmp_path / "a.parquet.gz", [{"a": 1}])
    (tmp_path / "array.json").write_bytes(b"\xef\xbb\xbf \n[{}]")
    (tmp_path / "lines.json").write_bytes(b"{}\n")
    write_jsonl(tmp_path / "a.jsonl", [])
    (tmp_path / "link.jsonl").symlink_to("nowhere")
    for name, message in {
        "pipe.jsonl": "is a pipe or a device",
        "none.jsonl": "no such file",
        "*.xyz": "no file has such a name",
        "a.parquet.gz": "parquet is compressed inside",
        "array.json": "is one JSON array: expected JSON Lines",
        "link.jsonl": "no such file",
    }.items():
        with pytest.raises(BatchError, match=message):
            names(tmp_path / name)
    assert names(tmp_path / "lines.json") == ["lines.json"]
    with pytest.raises(BatchError, match="is named twice"):
        names(tmp_path / "a.jsonl", tmp_path / "a.*l")
    with pytest.raises(BatchError, match="no input"):
        names()


def test_what_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    for pattern in ("*.jsonl", "*/in.jsonl"):
        with pytest.raises(BatchError, match=f"cannot read {tmp_path}: Permission denied"):
            find([str(tmp_path / pattern)])
    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(BatchError, match=r"cannot read .*in\.jsonl: Permission denied"):
        find([str(tmp_path / "in.jsonl")])


def test_no_glob_means_what_a_batch_keeps(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "out.jsonl.ledger" / "jobs").mkdir(parents=True)
    assert [file.path.name for file in find([str(tmp_path / "*")])] == ["a.jsonl"]
