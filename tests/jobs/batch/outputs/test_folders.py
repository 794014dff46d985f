"""Outputs that are folders: files as their rows are there, several drivers, and batches that are done again."""

import json
import threading
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.ledger.record import Record
from slurminfer.jobs.batch.outputs.parts import parts_of
from slurminfer.jobs.batch.parameters import Parameters

from .conftest import Work, answered, read, write

ROWS = 300  # five shards of the plan


def names(work: Work) -> list[str]:
    return sorted(file.name for file in work.output.iterdir())


@pytest.fixture
def numbered(tmp_path) -> Iterator[object]:
    """Makes drivers of one batch with 300 rows."""
    made: list[Work] = []
    inputs = [write(tmp_path / "in.jsonl", [{"n": number} for number in range(ROWS)])]

    def make(output: str = "out", **options: object) -> Work:
        made.append(Work(inputs, tmp_path / output, Parameters(), **{"rows_per_file": 100, **options}))
        return made[-1]

    yield make
    for work in made:
        work.close()


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_files_are_written_as_their_rows_are_there(numbered, format):
    work = numbered(format=format)
    work.export.check()
    assert names(work) == []
    work.settle([2, 1])
    work.export.write_ready()
    assert names(work) == []
    work.settle([3])
    work.export.write_ready()
    assert names(work) == [f"part-00001-of-00003.{format}"]
    assert [row["n"] for row in read(work.output)] == list(range(128, 256))
    work.settle([0, 4])
    work.export.write_ready()
    assert names(work) == [f"part-0000{part}-of-00003.{format}" for part in range(3)]
    assert work.export.finish() == work.output
    assert [row["n"] for row in read(work.output)] == list(range(ROWS))


def test_a_folder_is_a_dataset(numbered):
    work = numbered(format="parquet")
    work.run()
    (work.output / ".part-00000-of-00003.parquet.0.tmp").write_bytes(b"of a killed driver")
    table = ds.dataset(work.output).to_table()
    assert table.column("n").to_pylist() == list(range(ROWS))
    work.export.finish()
    assert len(names(work)) == 3, "leftovers are gone"


def test_equal_whatever_the_order(numbered):
    outputs = []
    for number, order in enumerate([range(5), [4, 2, 0, 1, 3]]):
        work = numbered(f"out{number}", format="parquet")
        work.export.check()
        for shard in order:
            work.settle([shard])
            work.export.write_ready()
        work.export.finish()
        outputs.append({file.name: file.read_bytes() for file in work.output.iterdir()})
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("output", ["out.jsonl", "out.jsonl.gz", "out.csv", "out.parquet"])
def test_files_are_equal_whatever_the_order(numbered, output):
    written = []
    for order in (range(5), [3, 1, 4, 0, 2]):
        work = numbered(output)
        work.export.check()
        work.settle(order)
        written.append(work.export.finish().read_bytes())
    assert written[0] == written[1]


def test_several_drivers_write_the_same_files_at_once(numbered):
    first, *others = drivers = [numbered(format="parquet") for _ in range(4)]
    for driver in drivers:
        driver.export.check()
    first.settle()
    for driver in drivers:
        driver.ledger.counts()  # looks for sealed shards
    threads = [threading.Thread(target=driver.export.finish) for driver in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row["n"] for row in read(first.output)] == list(range(ROWS))
    assert len([file for file in first.output.iterdir() if file.name.startswith("part")]) == 3
    others[0].export.finish()
    assert len(names(first)) == 3


@pytest.mark.parametrize("output", ["out", "out.jsonl", "out.csv"])
def test_rows_that_are_missing_are_an_error(numbered, output):
    work = numbered(output)
    work.export.check()
    work.settle([0, 1, 2, 3])
    work.settle([4], lambda row: answered(row) if row.index else None)
    with pytest.raises(BatchError, match="shard 4 of the batch has 43 of 44 rows in the ledger"):
        work.export.finish()
    assert not work.output.is_file()


def test_another_driver_with_other_options_is_refused(numbered):
    first = numbered(format="parquet")
    first.export.check()
    second = numbered(format="parquet", rows_per_file=50)
    with pytest.raises(BatchError, match="another driver at work writes"):
        second.export.check()
    first.close()
    second.export.check()


def test_files_with_rows_that_are_tried_again_are_written_again(numbered):
    def fails(row):
        return Record(index=row.index, error="no") if row.line == 1 else answered(row)

    work = numbered(format="jsonl")
    work.run(fails)
    assert read(work.output)[0]["error"] == "no"
    kept = (work.output / "part-00001-of-00003.jsonl").stat().st_ino
    work.close()
    again = numbered(format="jsonl")
    again.export.check()
    assert names(again) == ["part-00001-of-00003.jsonl", "part-00002-of-00003.jsonl"]
    again.settle()
    again.export.finish()
    assert read(again.output)[0]["error"] is None
    assert (again.output / "part-00001-of-00003.jsonl").stat().st_ino == kept


def test_files_of_other_options_are_written_again(numbered):
    numbered(format="jsonl").run()
    again = numbered(format="jsonl", rows_per_file=ROWS)
    again.ledger._signs.others = list
    again.export.check()
    assert names(again) == []
    again.export.finish()
    assert names(again) == ["part-00000-of-00001.jsonl"]


def test_a_snapshot_has_the_rows_that_are_settled(numbered, tmp_path):
    work = numbered(format="parquet")
    work.export.check()
    work.settle([3, 0], lambda row: answered(row) if row.index % 2 else None)
    work.settle([1])
    numbers = [*range(1, 64, 2), *range(64, 128), *range(193, 256, 2)]
    for name in ("snap.jsonl", "snap.csv", "snap.parquet", "snap"):
        assert work.export.snapshot(tmp_path / name) == len(numbers)
        assert [row["n"] for row in read(tmp_path / name)] == numbers
    assert (
        sorted(file.name for file in (tmp_path / "snap").iterdir())
        == [
            "part-00000-of-00002.parquet",
            "part-00001-of-00002.parquet",
        ]
        or len(list((tmp_path / "snap").iterdir())) == 1
    )
    work.settle([2])
    assert work.export.snapshot(tmp_path / "snap") == len(numbers) + 64, "an earlier one is replaced"
    assert len(read(tmp_path / "snap")) == len(numbers) + 64
    assert not [file for file in tmp_path.iterdir() if file.name.endswith(".tmp")]
    assert names(work) == []


def test_a_snapshot_of_nothing(numbered, tmp_path):
    work = numbered()
    for name in ("snap.jsonl", "snap.csv", "snap.parquet", "snap"):
        assert work.export.snapshot(tmp_path / name) == 0
        assert read(tmp_path / name) == []


def test_a_snapshot_replaces_no_folder_of_others(numbered, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(BatchError, match=r"mine has thesis\.tex"):
        numbered().export.snapshot(tmp_path / "mine")


def test_a_part_of_the_input_gives_way_to_all_of_it(numbered):
    """As `--limit` writes it."""
    work = numbered(format="jsonl")
    work.export.check()
    work.settle([0, 1], lambda row: answered(row) if row.index < 40 else None)
    assert work.export.snapshot(work.output) == 80
    assert names(work) == ["some-00000-of-00001.jsonl"]
    assert [row["n"] for row in read(work.output)] == [*range(40), *range(64, 104)]
    work.close()
    rest = numbered(format="jsonl")
    rest.export.check()
    rest.settle()
    rest.export.finish()
    assert names(rest) == [f"part-0000{part}-of-00003.jsonl" for part in range(3)]
    assert [row["n"] for row in read(rest.output)] == list(range(ROWS))


def test_all_files_have_the_same_columns(work):
    rows = [{"n": n} | ({"late": n} if n > 250 else {}) | ({"n": "text"} if n == 299 else {}) for n in range(ROWS)]
    made = work(rows, "out", format="parquet", rows_per_file=64)
    made.run()
    schemas = {pq.read_schema(file) for file in made.output.iterdir()}
    assert len(schemas) == 1 and schemas.pop().field("late").type == pa.int64()
    assert [json.loads(row["n"]) for row in read(made.output)] == [*range(299), "text"]


def test_the_types_of_columns_are_found_once(numbered):
    first = numbered(format="parquet")
    first.run()
    found = first.ledger.path / "columns.json"
    before = found.stat().st_mtime_ns
    second = numbered(format="parquet")
    second.reader.rows = None
    second.export.check()
    assert second.export._content.schema.field("n").type == pa.int64()
    found.write_text("damaged", encoding="utf-8")
    third = numbered(format="parquet")
    third.export.finish()
    assert found.stat().st_mtime_ns != before


def test_the_format_of_a_folder_is_that_of_the_input(work):
    table = pa.table({"a": [1]})
    for name, content, ending in [
        ("in.parquet", table, "parquet"),
        ("in.csv", table, "csv"),
        ("in.jsonl", [{"a": 1}], "jsonl"),
        ("in.txt", b"a\n", "jsonl"),
    ]:
        made = work(content, "out", name=name)
        made.run()
        assert names(made) == [f"part-00000-of-00001.{ending}"]


def test_an_input_without_rows(work):
    made = work(b"", "out", format="parquet")
    made.run()
    assert names(made) == ["part-00000-of-00001.parquet"]
    assert pq.read_table(made.output).column_names[0] == "generated_text"


def test_parts_have_at_least_so_many_rows(numbered):
    shards = numbered().plan.shards
    for least, groups in [(1, [1] * 5), (64, [1] * 5), (65, [2, 2, 1]), (299, [5]), (10_000, [5])]:
        parts = parts_of(shards, least, "csv")
        assert [len(part.shards) for part in parts] == groups
        assert [shard for part in parts for shard in part.shards] == list(shards)
