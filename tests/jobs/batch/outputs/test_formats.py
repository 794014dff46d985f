"""From every format to every format: rows, their order, their columns, and awkward values."""

import base64
import csv
import datetime as dt
import decimal
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurminfer.jobs.batch.ledger.record import Record
from slurminfer.jobs.batch.outputs.answers import make_record
from slurminfer.jobs.batch.parameters import Parameters

from .conftest import Work, answered, read, reply, request, write
from .test_types import json_values

UTC = dt.UTC
AWKWARD = ["é\u2028\U0001f600", "quo\"te's", "two\nlines\r\n", "", None, "a,b;c\t", "null", "\x00", " spaced ", "3"]
ROWS = 10


def json_rows() -> list[dict]:
    return [
        {
            "prompt": text,
            "list": [index, None] if index % 3 else [],
            "nested": {"deep": {"x": [index]}, "y": text} if index % 2 else None,
            "mixed": [index, "text", {"a": 1}, None][index % 4],
            "big": 1 << 70,
            "wide": (1 << 62) + index,
            "float": index + 0.5,
            "flag": index % 2 == 0,
        }
        | ({"sparse": index} if index == 7 else {})
        for index, text in enumerate(AWKWARD)
    ]


def typed_table() -> pa.Table:
    moment = dt.datetime(2024, 2, 29, 12, 30, 15, 123456)
    return pa.table(
        {
            "prompt": AWKWARD,
            "list": pa.array([[index, None] if index % 3 else [] for index in range(ROWS)], pa.list_(pa.int32())),
            "nested": pa.array([{"at": moment, "b": b"\xff"} if index % 2 else None for index in range(ROWS)]),
            "ns": pa.array([1_700_000_000_000_000_001 + index for index in range(ROWS)], pa.timestamp("ns")),
            "utc": pa.array([moment.replace(tzinfo=UTC)] * ROWS, pa.timestamp("us", "UTC")),
            "far": pa.array([1 << 49] * ROWS, pa.timestamp("ms")),
            "date": pa.array([moment.date()] * ROWS),
            "time": pa.array([1] * ROWS, pa.time64("ns")),
            "duration": pa.array([dt.timedelta(seconds=90)] * ROWS, pa.duration("us")),
            "decimal": pa.array([decimal.Decimal("-12345678901234567890.10")] * ROWS, pa.decimal128(30, 2)),
            "huge": pa.array([(1 << 64) - 1] * ROWS, pa.uint64()),
            "binary": pa.array([b"\xff\x00"] * ROWS, pa.large_binary()),
            "float": pa.array([0.1, float("nan"), float("inf"), None, 1e300] * 2, pa.float64()),
            "small": pa.array([0.1] * ROWS, pa.float32()),
            "word": pa.array(["a", "b"] * 5).dictionary_encode(),
            "map": pa.array([[("k", index)] for index in range(ROWS)], pa.map_(pa.string(), pa.int64())),
            "flag": pa.array([True, None] * 5),
            "none": pa.nulls(ROWS),
        }
    )


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_json_to_json_is_the_same(work, ending):
    rows = json_rows()
    output = work(rows, f"out{ending}").run()
    expected = [
        {**row, "generated_text": f"answer {index}", "finish_reason": "stop",
         "usage": {"prompt_tokens": 7, "cached_tokens": 3, "completion_tokens": 5}, "error": None}
        for index, row in enumerate(rows, start=1)
    ]  # fmt: skip
    assert read(output) == expected
    assert list(read(output)[0]) == list(expected[0]), "columns in their order"


def test_json_to_parquet(work):
    output = work(json_rows(), "out.parquet").run()
    table = pq.read_table(output)
    assert table.schema.field("list").type == pa.list_(pa.int64())
    assert table.column_names == [
        *json_rows()[0], "sparse", "generated_text", "finish_reason", "usage", "error", "message"
    ]  # fmt: skip
    for index, (row, written) in enumerate(zip(json_rows(), table.to_pylist(), strict=True)):
        for name in ("prompt", "list", "nested", "wide", "float", "flag"):
            assert written[name] == row[name]
        assert written["mixed"] == (None if row["mixed"] is None else json.dumps(row["mixed"], separators=(",", ":")))
        assert written["big"] == str(1 << 70)
        assert written["sparse"] == (7 if index == 7 else None)
        assert written["generated_text"] == f"answer {index + 1}"
        assert written["usage"] == {"prompt_tokens": 7, "cached_tokens": 3, "completion_tokens": 5}


def test_json_to_csv(work):
    output = work(json_rows(), "out.csv").run()
    with output.open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    for row, got in zip(json_rows(), written, strict=True):
        assert got["prompt"] == (row["prompt"] or "")
        for name in ("list", "nested", "mixed", "flag"):
            assert json.loads(got[name] or "null") == row[name]
        assert (int(got["wide"]), int(got["big"]), float(got["float"])) == (row["wide"], row["big"], row["float"])
        assert json.loads(got["usage"])["completion_tokens"] == 5
    assert b'""' in output.read_bytes(), "an empty text is not null"
    assert [row["prompt"] for row in read(output)] == AWKWARD


def test_parquet_to_parquet_keeps_types_and_values(work):
    table = typed_table()
    output = work(table, "out.parquet", name="in.parquet").run()
    written = pq.read_table(output)
    source = pq.read_table(output.with_name("in.parquet"))
    assert written.select(table.column_names).schema == source.schema
    for name in table.column_names:
        assert str(written.column(name)) == str(source.column(name)), "nulls, NaN and nanoseconds included"
    assert written.column("generated_text").to_pylist() == [f"answer {number}" for number in range(1, ROWS + 1)]
    assert pq.ParquetFile(output).metadata.row_group(0).column(0).compression == "ZSTD"


TEXT_OF_TYPES = {
    "utc": "2024-02-29T12:30:15.123456Z",
    "date": "2024-02-29",
    "decimal": "-12345678901234567890.10",
    "binary": base64.b64encode(b"\xff\x00").decode(),
    "duration": "PT90S",
    "word": "a",
    "ns": "2023-11-14T22:13:20.000000001",
    "time": "00:00:00.000000001",
}


def test_parquet_to_json(work):
    output = work(typed_table(), "out.jsonl", name="in.parquet").run()
    first, second, third, *_ = rows = read(output)
    assert [row["prompt"] for row in rows] == AWKWARD
    assert {name: first[name] for name in TEXT_OF_TYPES} == TEXT_OF_TYPES
    assert (first["list"], second["list"], first["map"], first["huge"]) == ([], [1, None], [["k", 0]], (1 << 64) - 1)
    assert second["nested"] == {"at": "2024-02-29T12:30:15.123456", "b": "/w=="}
    assert (first["float"], second["float"], third["float"], rows[4]["float"]) == (0.1, None, None, 1e300)
    assert (first["flag"], second["flag"], first["none"]) == (True, None, None)
    assert isinstance(first["far"], str)


def test_parquet_to_csv(work):
    output = work(typed_table(), "out.csv", name="in.parquet").run()
    with output.open(newline="", encoding="utf-8") as file:
        first, second, *_ = written = list(csv.DictReader(file))
    assert [row["prompt"] for row in read(output)] == AWKWARD
    assert {name: first[name] for name in TEXT_OF_TYPES} == TEXT_OF_TYPES
    assert (second["list"], first["map"], first["huge"]) == ("[1,null]", '[["k",0]]', str((1 << 64) - 1))
    assert json.loads(second["nested"]) == {"at": "2024-02-29T12:30:15.123456", "b": "/w=="}
    assert float(first["float"]) == 0.1 and second["float"] == "nan" and len(written) == ROWS


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet", "folder"])
def test_csv(work, output):
    texts = [text for text in AWKWARD if text not in (None, "", "null", "\x00", "3")]
    made = work(pa.table({"prompt": texts, "number": range(len(texts))}), output, name="in.csv").run()
    rows = read(made)
    assert [row["prompt"] for row in rows] == texts
    assert [int(row["number"]) for row in rows] == list(range(len(texts)))
    assert [row["generated_text"] for row in rows] == [f"answer {number}" for number in range(1, len(texts) + 1)]


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet", "folder"])
def test_text_and_its_blank_lines(work, output):
    rows = read(work("one\n\nzwei é\n  \nthree".encode(), output, name="in.txt").run())
    assert [row["generated_text"] for row in rows] == ["answer 1", "answer 3", "answer 5"]
    assert [row["prompt"] for row in rows] == ["one", "zwei é", "three"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), json_values, max_size=3), max_size=8))
def test_rows_of_json_are_the_same_in_json(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    made = Work([write(folder / "in.jsonl", rows)], folder / "out.jsonl", Parameters())
    written = read(made.run())
    made.close()
    own = [{name: value for name, value in row.items() if name in "abc"} for row in written]
    assert json.dumps(own) == json.dumps(rows)


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet"])
def test_rows_that_failed_say_why(work, output):
    def answer(row):
        return Record(index=row.index, status=400, error='no "x",\n') if row.line == 2 else answered(row)

    rows = read(work(b'{"prompt": "a"}\n{"prompt": "b"}\n{bad\n\n{"prompt": "c"}\n', output).run(answer))
    assert [row["generated_text"] for row in rows] == ["answer 1", None, None, "answer 5"]
    assert rows[1]["error"] == 'no "x",\n' and rows[1]["prompt"] == "b"
    assert rows[2]["error"].startswith("line 3: ") and rows[2].get("prompt") is None
    assert (rows[1]["usage"], rows[1]["finish_reason"], rows[0]["error"]) == (None, None, None)


def test_what_is_said_besides(work):
    said: dict[str, Any] = {"tool_calls": [{"id": "1"}], "reasoning_content": "hm"}

    def answer(row):
        return make_record(request(), [reply("a", **said)]) if row.index == 0 else answered(row)

    content = [{"prompt": "a"}]
    assert {name: read(work(content, "out.jsonl").run(answer))[0][name] for name in said} == said
    for output in ("out.parquet", "out.csv"):
        assert json.loads(read(work(content, output).run(answer))[0]["message"]) == said


@pytest.mark.parametrize("parameters", [Parameters(samples=2), Parameters(turns=("more",))])
def test_samples_and_turns_are_lists(work, parameters):
    def answer(row):
        if row.index == 1:
            return answered(row)  # one choice alone is a list too
        return Record(index=2, error="no") if row.index == 2 else make_record(request(), [reply("a", "b")], samples=2)

    expected = [["a", "b"], ["answer 2"], None]
    content = [{"prompt": "a"}] * 3
    for output in ("out.jsonl", "out.parquet"):
        rows = read(work(content, output, parameters=parameters).run(answer))
        assert [row["generated_text"] for row in rows] == expected
        assert [row["finish_reason"] for row in rows] == [["stop", "stop"], ["stop"], None]
    rows = read(work(content, "out.csv", parameters=parameters).run(answer))
    assert [row["generated_text"] and json.loads(row["generated_text"]) for row in rows] == expected


def test_a_row_that_asks_for_several_answers_itself(work):
    def answer(row):
        return make_record(request(body={"n": 2}), [reply("a", "b")])

    assert read(work([{"n": 2}], "out.jsonl").run(answer))[0]["generated_text"] == ["a", "b"]
    assert read(work([{"n": 2}], "out.parquet").run(answer))[0]["generated_text"] == '["a","b"]'


SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}, "o": {}}, "required": ["n"]})


@pytest.mark.parametrize("samples", [1, 2])
def test_a_schema_gives_a_column_of_its_types(work, samples):
    texts = ['{"n": 1, "o": [1], "x": 2}', "no JSON"]

    def answer(row):
        if row.index == 2:
            return Record(index=2, error="no")
        said = texts if samples == 2 else [texts[row.index]]
        return make_record(request(index=row.index), [reply(*said)], samples=samples)

    parameters, content = Parameters(schema=SCHEMA, samples=samples), [{"prompt": "a"}] * 3
    whole, typed = {"n": 1, "o": [1], "x": 2}, {"n": 1, "o": "[1]"}
    lists = samples == 2
    rows = read(work(content, "out.jsonl", parameters=parameters).run(answer))
    assert [row["parsed"] for row in rows] == ([[whole, None], [whole, None], None] if lists else [whole, None, None])
    table = pq.read_table(work(content, "out.parquet", parameters=parameters).run(answer))
    rows = table.to_pylist()
    assert [row["parsed"] for row in rows] == ([[typed, None], [typed, None], None] if lists else [typed, None, None])
    assert rows[1]["generated_text"] == (texts if lists else texts[1]), "the text stays"
    rows = read(work(content, "out.csv", parameters=parameters).run(answer))
    assert json.loads(rows[0]["parsed"]) == ([typed, None] if lists else typed)


OPENAI = [
    {"custom_id": "c1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": []}},
    {"custom_id": "c2", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user"}]}},
    {"custom_id": "c3", "url": "/v1/chat/completions", "body": {}},
]


def openai_answer(row):
    if row.index == 0:
        return answered(row)
    return Record(index=row.index, key="k", error="no", status=400 if row.index == 1 else None)


def test_openai_lines(work):
    first, second, third = rows = read(work(OPENAI, "out.jsonl").run(openai_answer))
    assert first["response"]["status_code"] == 200 and first["error"] is None
    assert first["response"]["body"]["choices"][0]["message"]["content"] == "answer 1"
    error = {"code": "invalid_request", "message": "no"}
    assert second["response"] == {"status_code": 400, "request_id": None, "body": {"error": error}}
    assert second["error"] == error
    assert third == {"id": third["id"], "custom_id": "c3", "response": None,
                     "error": {"code": "request_failed", "message": "no"}}  # fmt: skip
    assert [list(row) for row in rows] == [["id", "custom_id", "response", "error"]] * 3
    assert len({row["id"] for row in rows}) == 3 and all(row["id"].startswith("batch_req_") for row in rows)


def test_openai_lines_beside_rows_of_ours(work):
    first, second = read(work([OPENAI[0], {"prompt": "a"}], "out.jsonl").run())
    assert first["custom_id"] == "c1" and second["generated_text"] == "answer 2"
    parameters = Parameters(prompt_column="prompt")  # then `custom_id` is a column as any other
    row = {"custom_id": "mine", "prompt": "a"}
    (only,) = read(work([row], "out.jsonl", parameters=parameters).run(lambda row: Record(index=0, error="no")))
    assert (only["custom_id"], only["error"]) == ("mine", "no")


def test_openai_lines_have_columns_too(work):
    first, second, _ = read(work(OPENAI, "out.parquet").run(openai_answer))
    assert (first["generated_text"], first["finish_reason"], first["custom_id"]) == ("answer 1", "stop", "c1")
    assert first["usage"]["cached_tokens"] == 3
    assert json.loads(first["message"])["body"]["choices"][0]["message"]["content"] == "answer 1"
    assert (second["generated_text"], second["error"]) == (None, "no")


def test_what_has_the_name_of_a_generated_column_is_kept_under_another(work):
    rows = [{"usage": {"mine": 1}, "error": None, "logprobs": 3, "input_usage": "taken"}, {"message": "m"}]

    def answer(row):
        body = b'{"choices": [{"text": "a", "logprobs": {"tokens": ["a"]}}]}'
        return make_record(request(path="/v1/completions"), [body]) if row.index == 0 else answered(row)

    first, second = read(work(rows, "out.jsonl").run(answer))
    assert (first["input_input_usage"], first["input_usage"]) == ({"mine": 1}, "taken")
    assert (first["input_logprobs"], first["logprobs"]) == (3, {"tokens": ["a"]})
    assert first["usage"] is None and "input_error" not in first
    assert second["message"] == "m", "no column of JSON Lines"
    table = pq.read_table(work(rows, "out.parquet").run(answer))
    assert table.column("input_input_usage").to_pylist() == [{"mine": 1}, None]
    assert table.column("input_message").to_pylist() == [None, "m"] and "input_error" not in table.column_names
    assert len(set(table.column_names)) == len(table.column_names)


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet"])
@pytest.mark.parametrize("name", ["in.jsonl", "in.parquet"])
def test_only_some_columns(work, name, output):
    rows = [{"a": 1, "b": 2, "usage": 3}, {"a": 4, "b": 5, "usage": 6}]
    content = pa.Table.from_pylist(rows) if name == "in.parquet" else rows
    written = read(work(content, output, name=name, columns=("b", "a")).run())
    assert [list(row)[:3] for row in written] == [["b", "a", "generated_text"]] * 2
    assert [(row["b"], row["a"]) for row in written] == [(2, 1), (5, 4)]
    assert not any("input" in name for row in written for name in row)


def test_another_name_of_the_answer(work):
    (row,) = read(work([{"a": 1}], "out.jsonl", parameters=Parameters(answer_column="summary")).run())
    assert list(row) == ["a", "summary", "finish_reason", "usage", "error"]


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet"])
@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_inputs_without_rows(work, content, output):
    assert read(work(content, output).run()) == []


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet"])
def test_a_row_of_many_megabytes(work, output):
    text = "é" * 6_000_000
    (row,) = read(work([{"prompt": text}], output).run(lambda row: make_record(request(), [reply(text)])))
    assert row["prompt"] == row["generated_text"] == text


def test_files_with_different_types(work, tmp_path):
    tables = [{"a": pa.array([1], pa.int32())}, {"a": pa.array([1 << 40]), "b": ["x"]}]
    files = [write(tmp_path / f"{index}.parquet", pa.table(table)) for index, table in enumerate(tables)]
    table = pq.read_table(work(files, "out.parquet").run())
    assert table.schema.field("a").type == pa.int64()
    assert table.select(["a", "b"]).to_pylist() == [{"a": 1, "b": None}, {"a": 1 << 40, "b": "x"}]


@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])
def test_files_of_different_formats(work, tmp_path, output):
    files = [write(tmp_path / "0.parquet", pa.table({"a": [1]})), write(tmp_path / "1.jsonl", [{"a": 2, "b": "x"}])]
    rows = read(work(files, output).run())
    assert [(row["a"], row.get("b"), row["generated_text"]) for row in rows] == [
        (1, None, "answer 1"),
        (2, "x", "answer 1"),
    ]


def test_metadata_of_the_input_is_kept(work):
    table = pa.table({"a": [1]}).replace_schema_metadata({"huggingface": "{}"})
    output: Path = work(table, "out.parquet", name="in.parquet").run()
    assert pq.read_schema(output).metadata[b"huggingface"] == b"{}"


def test_row_groups_are_of_many_shards(work):
    output = work([{"n": n} for n in range(1000)], "out.parquet").run()
    assert pq.ParquetFile(io.BytesIO(output.read_bytes())).num_row_groups == 1


def test_text_that_is_not_utf8(work):
    texts = pa.array([b"a\xff", b"b"]).view(pa.string())
    table = pa.table({"n": [1, 2], "text": texts, "list": pa.array([[b"\xff"], [b"c"]]).cast(pa.list_(pa.binary()))})
    first, second = read(work(table, "out.jsonl", name="in.parquet").run())
    assert (first["text"], second["text"], first["list"]) == ("a\ufffd", "b", ["/w=="])
    written = pq.read_table(work(table, "out.parquet", name="in.parquet").run())
    assert written.column("text").cast(pa.binary()).to_pylist() == [b"a\xff", b"b"]


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet"])
def test_rows_of_csv_that_cannot_be_read(work, output):
    rows = read(work(b"a,b\n1,2\n\n3\n4,5\n", output, name="in.csv").run())
    assert [row["generated_text"] for row in rows] == ["answer 1", None, "answer 4"]
    assert rows[1]["error"].startswith("line 3: ") and rows[1].get("a") is None
    assert str(rows[2]["a"]) == "4"


def test_columns_of_csv_are_text(work):
    table = pq.read_table(work(b"a,b\n007,\n", "out.parquet", name="in.csv").run())
    assert table.select(["a", "b"]).to_pylist() == [{"a": "007", "b": ""}]


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet"])
def test_arrow(work, tmp_path, output):
    table = typed_table().drop_columns(["far", "ns", "time"])
    path = tmp_path / "data-00000-of-00001.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    rows = read(work([path], output).run())
    assert [row["prompt"] for row in rows] == AWKWARD
    assert [row["generated_text"] for row in rows] == [f"answer {number}" for number in range(1, ROWS + 1)]
