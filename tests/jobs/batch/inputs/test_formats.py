"""Rows of real files, however they are cut."""

import gzip
import json
import os
import random
import tracemalloc
from array import array
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from slurminfer.core import jsonl
from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.inputs import planning
from slurminfer.jobs.batch.inputs.files import find, has_changed
from slurminfer.jobs.batch.inputs.formats.source import Index
from slurminfer.jobs.batch.inputs.plan import Shard
from slurminfer.jobs.batch.inputs.planning import cut, make_plan
from slurminfer.jobs.batch.inputs.reader import Reader
from slurminfer.jobs.batch.inputs.row import Row

from .conftest import WRITERS, rows_of, write_csv, write_jsonl, write_parquet, write_stream

VALUES = [
    {"prompt": f"say {number} \u2028 \u00e9 {'x' * (number % 70)}", "label": str(number % 3)} for number in range(1000)
]


def expected(kind: str, values=VALUES):
    return [{"prompt": value["prompt"]} for value in values] if "txt" in kind else values


def test_every_format_gives_the_rows_in_order(tmp_path, kind):
    path = tmp_path / kind
    WRITERS[kind](path, VALUES)
    rows = rows_of(path)
    assert [row.value for row in rows] == expected(kind)
    assert [row.line for row in rows] == list(range(1, 1001))
    assert not any(row.problem or row.is_blank for row in rows)


@pytest.mark.parametrize("seed", range(3))
def test_shards_in_any_order_and_left_halfway_are_the_file(tmp_path, kind, seed, monkeypatch):
    chance = random.Random(f"{kind}{seed}")
    values = VALUES[: chance.choice([1, 63, 64, 65, 500, 1000])]
    path = tmp_path / kind
    WRITERS[kind](path, values)
    monkeypatch.setattr(planning, "_MOST_ROWS", chance.choice([64, 128, 8192]))
    monkeypatch.setattr(planning, "_PARTS", chance.choice([1, 3, 64]))
    monkeypatch.setattr(planning, "_MOST_BYTES", chance.choice([1, 5000, 1 << 26]))
    plan = make_plan(find([str(path)]))
    assert [shard.number for shard in plan.shards] == list(range(len(plan.shards)))
    order = list(plan.shards) * 2
    chance.shuffle(order)
    reader, found = Reader(plan), {}
    for shard in order:
        part = []
        for row in reader.rows(shard):
            part.append(row)
            if chance.random() < 0.003:
                break
        else:
            found[shard.number] = part
    for shard in plan.shards:
        found.setdefault(shard.number, list(reader.rows(shard)))
        table = reader.table(shard)
        if table is not None:
            assert table.to_pylist() == [row.value for row in found[shard.number]]
    reader.close()
    together = [row.value for number in range(len(plan.shards)) for row in found[number]]
    assert together == expected(kind, values)
    assert [row.index for row in found[0]] == list(range(plan.shards[0].rows))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(
        st.sampled_from([b"\n", b"\r\n", b'"', b",", b"{}", b'{"a":1}', b"\xff", b"a", b"\xef\xbb\xbf", b"\x00"])
    )
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv"])
def test_any_bytes_are_rows_problems_or_one_clear_error(tmp_path, name, data, monkeypatch):
    path = tmp_path / name
    path.write_bytes(b"".join(data))
    try:
        rows = rows_of(path)
    except BatchError as error:
        assert str(path) in str(error) and name == "a.csv", "only a header can be what no file can have"
        return
    for row in rows:
        assert (row.value is None) or (row.problem is None)
    if name != "a.csv":
        content = b"".join(data)
        assert len(rows) == content.count(b"\n") + (content != b"" and not content.endswith(b"\n"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl.gz", "a.csv.zst", "a.jsonl", "a.csv"])
def test_random_bytes_never_raise_anything_else(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    try:
        rows_of(path)
    except BatchError as error:
        assert str(path) in str(error)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@pytest.mark.parametrize("kind", ["a.parquet", "stream.arrow", "file.arrow", "a.jsonl.gz", "a.txt.zst"])
def test_a_damaged_file_is_an_error_or_has_other_rows(tmp_path, kind, place, byte):
    path = tmp_path / kind
    WRITERS[kind](path, VALUES[:100])
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] = byte
    path.write_bytes(content)
    try:
        rows_of(path)
    except BatchError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("kind", ["a.parquet", "stream.arrow", "file.arrow", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_truncated_file_is_an_error(tmp_path, kind):
    path = tmp_path / kind
    WRITERS[kind](path, VALUES)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(BatchError, match=r"cannot read .*" + kind):
        rows_of(path)


def test_lines_as_programs_write_them(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 100)
    path = tmp_path / "a.jsonl"
    lines = [
        b'\xef\xbb\xbf{"a": 1}\r',
        b"",
        b" \t\r",
        b'{"a": "\xe2\x80\xa8"}',
        b"x" * 101,
        b"[1]",
        b'{"a": 1, "a" : 2}',
        b"{}",
    ]
    path.write_bytes(b"\n".join(lines))
    rows = rows_of(path)
    assert [row.value for row in rows] == [{"a": 1}, None, None, {"a": "\u2028"}, None, None, None, {}]
    assert [row.is_blank for row in rows] == [False, True, True, False, False, False, False, False]
    problems = [row.problem for row in rows if row.problem]
    assert "longer than" in problems[0] and "not an array" in problems[1] and "'a' occurs twice" in problems[2]


def test_text_lines_are_prompts_as_they_are(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b'\xef\xbb\xbf a b \r\n\n{"x": 1}\n\xff\nlast')
    rows = rows_of(path)
    assert [row.value and row.value["prompt"] for row in rows] == [" a b ", None, '{"x": 1}', None, "last"]
    assert rows[3].problem and "UTF-8" in rows[3].problem


def test_csv_with_everything_that_may_be_quoted(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'\xef\xbb\xbfid,prompt\r\n007,"a\n""b"",\r\nc"\r\n\r\n1\r\n2,x,y\r\n3,\xff\r\n4,a"b\r\n5,"a"b\r\n,\r\n6,"open'
    )
    rows = rows_of(path)
    assert [row.value for row in rows] == [
        {"id": "007", "prompt": 'a\n"b",\r\nc'}, None, None, None, None, {"id": "4", "prompt": 'a"b'}, None,
        {"id": "", "prompt": ""}, None,
    ]  # fmt: skip
    assert rows[1].is_blank
    problems = [row.problem or "" for row in rows]
    assert "1 values, and the file has 2 columns" in problems[2] and "3 values" in problems[3]
    assert "UTF-8" in problems[4] and "not CSV" in problems[6] and "a quote that nothing closes" in problems[8]
    plan = make_plan(find([str(path)]))
    with closing(Reader(plan)) as reader:
        table = reader.table(plan.shards[0])
    assert table is not None
    ids = table.column("id").to_pylist()
    assert ids == [row.value and row.value["id"] for row in rows]


def test_tsv_has_tabs(tmp_path):
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b'a\tb\n1,2\t"3\t4"\n'))
    assert [row.value for row in rows_of(tmp_path / "a.tsv.gz")] == [{"a": "1,2", "b": "3\t4"}]


@pytest.mark.parametrize("header", [b"a,b,a\n", b'"a\xff"\n', b"\n1\n"])
def test_csv_headers_that_are_none(tmp_path, header):
    path = tmp_path / "a.csv"
    path.write_bytes(header)
    with pytest.raises(BatchError, match=r"a\.csv: (line 1|the first line)"):
        rows_of(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv", "a.jsonl.gz"])
def test_an_empty_file_has_no_rows(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    assert rows_of(path) == []


def test_gzip_of_several_members(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n{"a"') + gzip.compress(b": 2}\n"))
    assert [row.value for row in rows_of(path)] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("kind", ["a.jsonl", "a.csv", "a.jsonl.gz", "a.parquet", "stream.arrow"])
def test_a_record_of_many_mebibytes_passes_whole(tmp_path, kind):
    path = tmp_path / kind
    values = [
        {"prompt": "a", "label": "b"},
        {"prompt": "x" * (24 << 20) + "\n", "label": "c"},
        {"prompt": "d", "label": "e"},
    ]
    WRITERS[kind](path, values)
    assert [row.value for row in rows_of(path)] == values


def test_text_that_is_not_utf8_in_a_column_is_one_rows_problem(tmp_path):
    strings = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", b"c"], pa.binary()).buffers())
    table = pa.table({"prompt": strings, "n": [1, 2, 3]})
    parquet.write_table(table, tmp_path / "a.parquet")
    with ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "a.arrow"):
        rows = rows_of(tmp_path / name)
        assert [row.value for row in rows] == [{"prompt": "a", "n": 1}, None, {"prompt": "c", "n": 3}]
        assert rows[1].problem and "column 'prompt'" in rows[1].problem


@pytest.mark.parametrize("write", [write_parquet, write_stream])
def test_only_columns_that_are_wanted_are_rows_and_tables_have_all(tmp_path, write):
    path = tmp_path / ("a.parquet" if write is write_parquet else "a.arrow")
    write(path, [{"a": 1, "b.c": 2, "c": [3]}])
    plan = make_plan(find([str(path)]))
    reader = Reader(plan, ["c", "b.c", "missing"])
    (row,) = reader.rows(plan.shards[0])
    assert row.value == {"b.c": 2, "c": [3]} and row.columns == ("a", "b.c", "c")
    table = reader.table(plan.shards[0])
    assert table is not None and table.to_pylist() == [{"a": 1, "b.c": 2, "c": [3]}]
    (nothing,) = Reader(plan, []).rows(plan.shards[0])
    assert nothing.value == {}


def test_two_columns_of_one_name(tmp_path):
    parquet.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(BatchError, match="two columns have the name 'a'"):
        rows_of(tmp_path / "a.parquet")


def test_a_name_that_is_not_utf8(tmp_path):
    path = tmp_path / "a.arrow"
    write_stream(path, [{"prompt": "a"}])
    path.write_bytes(path.read_bytes().replace(b"prompt", b"pro\xffpt"))
    with pytest.raises(BatchError, match=r"a\.arrow: the name of a column is not UTF-8"):
        rows_of(path)


def test_a_file_that_changes_is_told(tmp_path, kind):
    path = tmp_path / kind
    WRITERS[kind](path, VALUES)
    plan = make_plan(find([str(path)]))
    reader = Reader(plan)
    list(reader.rows(plan.shards[0]))
    assert not has_changed(plan.files[0])
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert has_changed(plan.files[0])
    with pytest.raises(BatchError, match="was changed"):
        reader.rows(plan.shards[0])
    path.unlink()
    assert has_changed(plan.files[0])
    with pytest.raises(BatchError, match="was changed"):
        reader.table(plan.shards[0])


def test_a_file_that_grows_while_it_is_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n")
    files = find([str(path)])
    path.write_bytes(b"{}\n{}\n")
    with pytest.raises(BatchError, match="was changed while its rows were counted"):
        make_plan(files)


def test_shards_are_few_enough_and_large_enough():
    def sizes(rows: int, bytes_each: int = 10, files: int = 1) -> list[Shard]:
        offsets = array("q", range(0, rows * bytes_each, 64 * bytes_each))
        indexes = [Index(rows=rows, plain_bytes=rows * bytes_each, offsets=offsets) for _ in range(files)]
        shards = cut(indexes)
        assert sum(shard.rows for shard in shards) == rows * files
        assert all(shard.offset == shard.first * bytes_each for shard in shards)
        return shards

    assert [shard.rows for shard in sizes(63)] == [63]
    assert [shard.rows for shard in sizes(130)] == [64, 64, 2]
    assert {shard.rows for shard in sizes(64 * 1024)} == {1024}
    assert max(shard.rows for shard in sizes(10_000_000)) == 8192
    assert {shard.rows for shard in sizes(640, bytes_each=10 << 20)} == {64}
    assert {shard.rows for shard in sizes(6400, bytes_each=1 << 19)} == {64, 128} - {128}
    assert len(sizes(1000, files=20)) == 20 * 4
    assert sizes(0) == []
    big = Index(rows=1 << 31, plain_bytes=1 << 41)
    assert len(cut([big])) <= 16_384


def test_counting_remembers_few_places(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "_MOST_PLACES", 20)
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl(tmp_path / name, [{"a": number} for number in range(5000)])
    plan = make_plan(find([str(tmp_path / "*.jsonl")]))
    assert 4 < len(plan.shards) <= 20
    with closing(Reader(plan)) as reader:
        assert [row.value and row.value["a"] for shard in plan.shards for row in reader.rows(shard)] == [
            *range(5000)
        ] * 2


def test_planning_tells_how_far_it_is(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", VALUES)
    write_csv(tmp_path / "b.csv", VALUES)
    write_parquet(tmp_path / "c.parquet", VALUES)
    told: list[tuple[int, int]] = []
    files = find([str(tmp_path / name) for name in ("a.jsonl", "b.csv", "c.parquet")])
    make_plan(files, lambda read, total: told.append((read, total)))
    total = sum(file.size for file in files)
    assert told[-1] == (total, total) and told == sorted(told) and {each[1] for each in told} == {total}


def test_planning_and_reading_hold_little_in_memory(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        for _ in range(40):
            file.write((json.dumps({"prompt": "x" * 1000}) + "\n").encode() * 1000)
    tracemalloc.start()
    try:
        plan = make_plan(find([str(path)]))
        with closing(Reader(plan)) as reader:
            assert sum(1 for shard in plan.shards for _ in reader.rows(shard)) == 40_000
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_numbers_of_columns_have_their_types(tmp_path):
    path: Path = tmp_path / "a.parquet"
    write_parquet(path, [{"a": 1, "b": 0.5, "c": None, "d": {"e": ["f"]}}])
    assert [row.value for row in rows_of(path)] == [{"a": 1, "b": 0.5, "c": None, "d": {"e": ["f"]}}]


def test_a_row_is_called_a_line_where_it_is_one():
    assert Row(shard=0, index=1, line=2, value=None).place == "line 2"
    assert Row(shard=0, index=1, line=2, value=None, format="csv").place == "row 2"
