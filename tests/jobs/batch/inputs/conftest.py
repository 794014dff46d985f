"""Inputs of batches, of every format, as files."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from slurminfer.jobs.batch.inputs.files import find
from slurminfer.jobs.batch.inputs.planning import make_plan
from slurminfer.jobs.batch.inputs.reader import Reader
from slurminfer.jobs.batch.inputs.row import Row

Values = list[dict[str, Any]]


def write_jsonl(path: Path, values: Values) -> None:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values), encoding="utf-8")


def write_text(path: Path, values: Values) -> None:
    path.write_text("\n".join(value["prompt"] for value in values), encoding="utf-8")


def csv_text(values: Values) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(values[0]), lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(values)
    return text.getvalue()


def write_csv(path: Path, values: Values) -> None:
    path.write_bytes(csv_text(values).encode())


def write_parquet(path: Path, values: Values) -> None:
    parquet.write_table(pa.Table.from_pylist(values), path, row_group_size=37)


def write_stream(path: Path, values: Values) -> None:
    table = pa.Table.from_pylist(values)
    with ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=29)


def write_arrow_file(path: Path, values: Values) -> None:
    table = pa.Table.from_pylist(values)
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=29)


def compressed(write: Callable[[Path, Values], None], codec: str) -> Callable[[Path, Values], None]:
    def write_compressed(path: Path, values: Values) -> None:
        plain = path.with_name("plain")
        write(plain, values)
        data = plain.read_bytes()
        plain.unlink()
        path.write_bytes(gzip.compress(data) if codec == "gzip" else pa.compress(data, codec, asbytes=True))

    return write_compressed


WRITERS: dict[str, Callable[[Path, Values], None]] = {
    "a.jsonl": write_jsonl,
    "a.txt": write_text,
    "a.csv": write_csv,
    "a.parquet": write_parquet,
    "stream.arrow": write_stream,
    "file.arrow": write_arrow_file,
    **{f"a.{kind}.gz": compressed(write, "gzip") for kind, write in (("jsonl", write_jsonl), ("csv", write_csv))},
    **{f"a.{kind}.zst": compressed(write, "zstd") for kind, write in (("jsonl", write_jsonl), ("txt", write_text))},
}


def rows_of(path: Path, format: str | None = None) -> list[Row]:
    plan = make_plan(find([str(path)], format))
    reader = Reader(plan)
    try:
        found = [row for shard in plan.shards for row in reader.rows(shard)]
    finally:
        reader.close()
    assert len(found) == plan.rows
    return found


@pytest.fixture(params=list(WRITERS))
def kind(request) -> str:
    """The name of a file, of each format in turn."""
    return request.param
