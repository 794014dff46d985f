"""Where an output is written, where it is not, and what a full disk leaves behind."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slurminfer.core.errors import BatchError, UsageError
from slurminfer.jobs.batch.outputs.form import Form, form_of
from slurminfer.jobs.batch.parameters import Parameters

from ....support.small_disk import small_disk_at
from .conftest import Work, read, write

ROW = [{"prompt": "a"}]
FORMATS = ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.csv", "out.csv.gz", "out.parquet"]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.jsonl", Form("jsonl", None, False)), ("a.JSONL", Form("jsonl", None, False)),
        ("a.ndjson", Form("jsonl", None, False)), ("a.b.csv.gz", Form("csv", "gzip", False)),
        ("a.jsonl.zst", Form("jsonl", "zstd", False)), ("a.parquet", Form("parquet", None, False)),
        ("a", Form("parquet", None, True)), ("llama-3.1", Form("parquet", None, True)),
    ],
)  # fmt: skip
def test_names_say_the_form(tmp_path, name, form):
    assert form_of(tmp_path / name, None, ["parquet", "csv"]) == form


def test_forms_that_are_asked_for(tmp_path):
    assert form_of(tmp_path / "a", "csv", ["jsonl"]) == Form("csv", None, True)
    assert form_of(tmp_path / "a.csv", "csv", []) == Form("csv", None, False)
    assert form_of(tmp_path / "a", None, ["arrow"]).format == "parquet"
    assert form_of(tmp_path / "a", None, ["text"]).format == "jsonl"
    (tmp_path / "folder.csv").mkdir()
    assert form_of(tmp_path / "folder.csv", None, ["jsonl"]) == Form("jsonl", None, True)
    with pytest.raises(UsageError, match="--output-format xml: expected one of jsonl, csv, parquet"):
        form_of(tmp_path / "a", "xml", [])
    with pytest.raises(UsageError, match=r"--output-format csv: a\.jsonl is the name of a file in jsonl"):
        form_of(tmp_path / "a.jsonl", "csv", [])
    for name in ("a.json", "a.txt", "a.parquet.gz"):
        with pytest.raises(UsageError, match=r"expected a name that ends with one of \.jsonl, "):
            form_of(tmp_path / name, None, ["jsonl"])
    with pytest.raises(
        UsageError, match=r"a\.parqet: expected a name that ends with \.parquet, or a folder of another"
    ):
        form_of(tmp_path / "a.parqet", None, ["jsonl"])


@pytest.mark.parametrize("output", ["out.parquet", "out.csv", "folder"])
def test_columns_with_the_names_of_generated_ones_are_refused(work, output):
    for name, advice in [("generated_text", "another name with --answer-column, or "), ("usage", ""), ("message", "")]:
        table = pa.table({"a": [1], name: ["mine"]})
        with pytest.raises(UsageError, match=f"a column '{name}'.*: (choose )?{advice}leave it out with --columns"):
            work(table, output, name="in.parquet").export.check()
        work(table, output, name="in.parquet", columns=("a",)).export.check()
    table = pa.table({"a": [1], "parsed": [1]})
    work(table, output, name="in.parquet").export.check()
    with pytest.raises(UsageError, match="'parsed'"):
        work(table, output, name="in.parquet", parameters=Parameters(schema="{}")).export.check()


def test_json_lines_have_no_column_message(work):
    work(pa.table({"message": [1]}), "out.jsonl", name="in.parquet").export.check()
    with pytest.raises(UsageError, match="'error'"):
        work(pa.table({"error": [1]}), "out.jsonl", name="in.parquet").export.check()


def test_an_answer_column_with_the_name_of_another(work):
    with pytest.raises(UsageError, match="--answer-column usage: expected another name than finish_reason, usage"):
        work(ROW, "out.jsonl", parameters=Parameters(answer_column="usage")).export.check()
    table = pa.table({"a": [1]})
    with pytest.raises(UsageError, match="a column 'a'"):
        work(table, "out.csv", name="in.csv", parameters=Parameters(answer_column="a")).export.check()


def test_columns_that_are_not_there(work):
    with pytest.raises(UsageError, match="--columns b: the input has a"):
        work(pa.table({"a": [1]}), "out.csv", name="in.parquet", columns=("b",)).export.check()


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet"])
def test_columns_that_no_row_has(work, tmp_path, output):
    rows = [{"prompt": "a"}] * 99 + [{"prompt": "a", "rare": 1}]
    work(rows, output, columns=("prompt", "rare")).export.check()
    with pytest.raises(UsageError, match="--columns b: no row of the input has it; there are prompt, rare"):
        work(rows, output, columns=("prompt", "b")).export.check()
    with pytest.raises(UsageError, match="--columns id: no row of the input has it; there are prompt"):
        work(b"a line\n", output, name="in.txt", columns=("id",)).export.check()
    files = [write(tmp_path / "0.jsonl", rows), write(tmp_path / "1.parquet", pa.table({"a": [1]}))]
    work(files, output, columns=("a", "rare")).export.check()
    with pytest.raises(UsageError, match="--columns b: no row of the input has it; there are a, prompt, rare"):
        work(files, output, columns=("a", "b")).export.check()


def test_of_an_input_without_rows_no_column_is_missing(work):
    work(b"", "out.jsonl", columns=("a",)).export.check()
    work(b"no JSON\n", "out.jsonl", columns=("a",)).export.check()


@pytest.mark.parametrize(
    ("name", "content"), [("in.csv", b"a,b\n"), ("in.parquet", pa.table({"a": pa.array([], pa.int32()), "b": []}))]
)
def test_an_output_without_rows_has_the_columns_of_the_input(work, name, content):
    assert pq.read_schema(work(content, "out.parquet", name=name).run()).names[:3] == ["a", "b", "generated_text"]


def test_types_that_have_nothing_in_common(work, tmp_path):
    for one, other in [(pa.array(["x"]), pa.array([1])), (pa.array([1]), pa.array([0.5]))]:
        files = [
            write(tmp_path / "0.parquet", pa.table({"a": one})),
            write(tmp_path / "1.parquet", pa.table({"a": other})),
        ]
        with pytest.raises(UsageError, match=r"types|expected one type"):
            work(files, "out.parquet").export.check()
        with pytest.raises(UsageError, match="--columns"):
            work(files, "out.parquet").export.check()


def test_rows_per_file(work):
    with pytest.raises(UsageError, match="--rows-per-file 0: expected at least 1"):
        work(ROW, "out", rows_per_file=0).export.check()


def test_the_input_is_no_output(work, tmp_path):
    made = work(ROW, "in.jsonl")
    with pytest.raises(BatchError, match=r"in\.jsonl is the input"):
        made.export.check()
    os.link(made.output, tmp_path / "other.jsonl")
    with pytest.raises(BatchError, match=r"other\.jsonl is the input"):
        Work([made.output], tmp_path / "other.jsonl", Parameters()).export.check()
    with pytest.raises(BatchError, match="has the input"):
        Work([made.output], made.output.parent, Parameters()).export.check()


def test_what_is_there_is_not_replaced(work):
    made = work(ROW, "out.jsonl")
    made.output.write_text("thesis")
    with pytest.raises(BatchError, match=r"out\.jsonl is there, and is not this batch's: remove it, or choose"):
        made.export.check()
    made.output.unlink()
    made.run()
    made.export.check()
    assert read(made.export.finish())[0]["generated_text"] == "answer 1"
    for name in ("thesis.tex", "part-00000-of-00001.jsonl"):
        folder = work(ROW, "out")
        folder.output.mkdir()
        (folder.output / name).write_text("")
        with pytest.raises(BatchError, match=f"out has {name}, which is not this batch's"):
            folder.export.check()


def test_places_that_are_none(work):
    with pytest.raises(BatchError, match=r"cannot write .*: it is neither a file nor a folder"):
        made = work(ROW, "out.jsonl")
        os.mkfifo(made.output)
        made.export.check()
    with pytest.raises(BatchError, match=r"cannot write .*: it is neither a file nor a folder"):
        made = work(ROW, "out")
        made.output.touch()
        made.export.check()


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files of this process take at most 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))

    yield fill  # type: ignore[misc]
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("output", [*FORMATS, "out"])
def test_a_disk_without_room_leaves_nothing_half(work, full_disk, output):
    made = work([{"n": os.urandom(400).hex()} for _ in range(300)], output, rows_per_file=1000)
    made.export.check()
    made.settle()
    full_disk()
    with pytest.raises(BatchError, match=rf"cannot write {made.output}.*: File too large; nothing of it is left"):
        made.export.finish()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    left = {path.name for path in made.output.parent.iterdir()}
    assert left - {"in.jsonl", f"{output}.ledger"} == ({"out"} if output == "out" else set())
    if output == "out":
        assert list(made.output.iterdir()) == []
    assert len(read(made.export.finish())) == 300, "with room again"


def test_a_snapshot_without_room(work, full_disk):
    made = work([{"n": os.urandom(400).hex()} for _ in range(300)], "out", rows_per_file=1000)
    made.settle()
    full_disk()
    for name in ("snap", "snap.parquet"):
        with pytest.raises(BatchError, match="File too large"):
            made.export.snapshot(made.output.with_name(name))
    assert {path.name for path in made.output.parent.iterdir()} == {"in.jsonl", "out.ledger"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    with small_disk_at(folder, "256k"):
        yield folder


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv.gz", "out.parquet"])
def test_a_full_file_system(small_disk, tmp_path, output):
    inputs = [write(tmp_path / "in.jsonl", [{"n": os.urandom(1000).hex()} for _ in range(300)])]
    made = Work(inputs, tmp_path / output, Parameters())
    made.settle()
    place = small_disk / output
    with pytest.raises(BatchError, match=f"cannot write {place}: No space left on device"):
        made.export.snapshot(place)
    assert list(small_disk.iterdir()) == []
    made.close()
