"""Batches whose rows are settled by hand: real files, plan, ledger and reader, and no endpoint."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from slurminfer.jobs.batch.inputs.files import find
from slurminfer.jobs.batch.inputs.plan import Plan
from slurminfer.jobs.batch.inputs.planning import make_plan
from slurminfer.jobs.batch.inputs.reader import Reader
from slurminfer.jobs.batch.inputs.request import BatchRequest
from slurminfer.jobs.batch.inputs.row import Row
from slurminfer.jobs.batch.ledger.ledger import Ledger
from slurminfer.jobs.batch.ledger.record import Record
from slurminfer.jobs.batch.outputs.answers import make_record
from slurminfer.jobs.batch.outputs.export import Export, OutputOptions
from slurminfer.jobs.batch.parameters import Parameters


def reply(*texts: str | None, usage: tuple[int, int, int] | None = (7, 3, 5), **said: Any) -> bytes:
    """A chat engine's reply with so many choices; `said` is what messages have besides."""
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text, **said}, "finish_reason": "stop"}
        for index, text in enumerate(texts)
    ]
    body: dict[str, Any] = {"id": "c-1", "object": "chat.completion", "choices": choices}
    if usage is not None:
        prompt, cached, completion = usage
        details = {"cached_tokens": cached}
        body["usage"] = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    return json.dumps(body).encode()


def request(shard: int = 0, index: int = 0, *, path: str = "/v1/chat/completions", **changed: Any) -> BatchRequest:
    """What a row asks for."""
    basic = {"line": index + 1, "key": f"{shard:016x}{index:016x}", "body": {}}
    return BatchRequest(shard=shard, index=index, path=path, **{**basic, **changed})


def answered(row: Row) -> Record:
    """The end of a row: what an engine would say to it, or its problem."""
    if row.is_blank:
        return Record(index=row.index, blank=True)
    if row.value is None:
        return Record(index=row.index, error=f"line {row.line}: {row.problem}")
    asked = request(row.shard, row.index, whole_answer="custom_id" in row.value)
    return make_record(asked, [reply(f"answer {row.line}")], "req-1")


NO_PARAMETERS = Parameters()


def plan_of(inputs: Sequence[Path]) -> Plan:
    """Of few rows: shards have 64."""
    return make_plan(find([str(path) for path in inputs]))


class Work:
    """A batch, from its input to its output, as one driver does it."""

    def __init__(self, inputs: Sequence[Path], output: Path, parameters: Parameters, **options: Any) -> None:
        self.output, self.options = output, OutputOptions(path=output, **options)
        self.ledger = Ledger(output.with_name(f"{output.name}.ledger"), parameters, lambda: plan_of(inputs))
        self.plan = self.ledger.plan
        self.reader = Reader(self.plan)
        self._asking = Reader(self.plan, ["prompt", "custom_id"])
        self.export = Export(self.ledger, self.reader, self.options)

    def settle(self, shards: Iterable[int] | None = None, answer: Callable[[Row], Record | None] = answered) -> None:
        """Settle the rows of shards, in this order; None: of all. A shard is sealed when all its rows are settled."""
        for number in range(len(self.plan.shards)) if shards is None else shards:
            shard = self.ledger.claim(lambda shard, number=number: shard.number == number)  # type: ignore[misc]
            if shard is None:
                continue
            records = [answer(row) for row in self._asking.rows(shard)]
            for record in records:
                if record is not None:
                    self.ledger.append(shard, record)
            if None not in records:
                self.ledger.seal(shard)

    def run(self, answer: Callable[[Row], Record | None] = answered) -> Path:
        """All of it."""
        self.export.check()
        self.settle(answer=answer)
        return self.export.finish()

    def close(self) -> None:
        """End the driver."""
        self.reader.close()
        self._asking.close()
        self.ledger.__exit__()


@pytest.fixture
def work(tmp_path):
    """Makes batches: of files, or of one file's bytes, table or JSON rows, whose format is that of its name."""
    made: list[Work] = []

    def make(
        content: Any, output: str, *, name: str = "in.jsonl", parameters: Parameters = NO_PARAMETERS, **options: Any
    ) -> Work:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        files = isinstance(content, list) and content and isinstance(content[0], Path)
        inputs = content if files else [write(folder / name, content)]
        made.append(Work(inputs, folder / output, parameters, **options))
        return made[-1]

    yield make
    for batch in made:
        batch.close()


def write(path: Path, content: Any) -> Path:
    """A file of the input: bytes, a table, or rows of JSON."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".parquet":
        pq.write_table(content, path)
    elif path.suffix == ".csv":
        pc.write_csv(content, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of an output: of a file, or of a folder's files one after the other."""
    if path.is_dir():
        return [row for file in sorted(path.iterdir()) for row in read(file)]
    if ".jsonl" in path.name:
        with pa.input_stream(path) as stream:  # which knows .gz and .zst
            return [json.loads(line) for line in stream.read().splitlines()]
    if ".csv" in path.name:
        options = pc.ParseOptions(newlines_in_values=True)
        strings = pc.ConvertOptions(
            strings_can_be_null=True, quoted_strings_can_be_null=False, timestamp_parsers=["none"]
        )
        blocks = pc.ReadOptions(block_size=1 << 26)
        return pc.read_csv(path, blocks, options, strings).to_pylist()
    return pq.read_table(path).to_pylist()
