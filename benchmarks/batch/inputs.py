"""What batches ask here: the questions of examples/data, and numbered rows that a stub endpoint can answer."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from .stub.__main__ import MARK

_QUESTIONS = Path(__file__).parents[2] / "examples/data/prompts-100.jsonl"
_AT_ONCE = 10_000


def questions(count: int) -> list[str]:
    """So many questions, all different, each beginning in its own way, so that no two share a long prefix."""
    lines = _QUESTIONS.read_text(encoding="utf-8").splitlines()
    asked = [json.loads(line)["messages"][0]["content"] for line in lines]
    return [f"Question {number}. {asked[number % len(asked)]}" for number in range(count)]


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A JSON Lines file with these rows."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file. What a model says has characters at which str.splitlines would split too."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def as_openai(row: dict[str, Any], number: int, model: str) -> dict[str, Any]:
    """A line of OpenAI's batch API for a row of ours."""
    body = {"model": model, **row}
    return {"custom_id": f"q-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def prompt_of(number: int) -> str:
    """The prompt of a numbered row."""
    return f"{MARK.decode()}{number}: what is it?"


def write_numbered(path: Path, rows: int) -> Path:
    """A JSON Lines file of numbered rows, `{"id", "text"}`; see `prompt_of`."""
    with path.open("w", encoding="utf-8") as file:
        for begin in range(0, rows, _AT_ONCE):
            numbers = range(begin, min(rows, begin + _AT_ONCE))
            file.write("".join(f'{{"id":{number},"text":"{prompt_of(number)}"}}\n' for number in numbers))
    return path


def write_numbered_parquet(path: Path, rows: int) -> Path:
    """The same as Parquet, in row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for begin in range(0, rows, _AT_ONCE):
            numbers = range(begin, min(rows, begin + _AT_ONCE))
            columns = [list(numbers), [prompt_of(number) for number in numbers]]
            writer.write_table(pa.table(columns, schema=schema))
    return path


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON Lines or Parquet file, one after the other."""
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["id", "generated_text"]):
                yield from batch.to_pylist()
        return
    with path.open("rb") as lines:
        yield from map(msgspec.json.decode, lines)


def wrong_of(rows: Iterator[dict[str, Any]], expected: int) -> int:
    """How many of the numbered rows are missing, out of order, or have another answer than their own number."""
    wrong = number = 0
    for number, row in enumerate(rows, 1):
        wrong += row["id"] != number - 1 or row["generated_text"] != str(number - 1)
    return wrong + abs(expected - number)
