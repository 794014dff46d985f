"""Ledgers over an input that is not there: plans are made up, everything else is real."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from slurminfer.jobs.batch.inputs.plan import InputFile, Plan, Shard
from slurminfer.jobs.batch.ledger.ledger import Ledger
from slurminfer.jobs.batch.ledger.record import Record
from slurminfer.jobs.batch.ledger.signs import Sign
from slurminfer.jobs.batch.parameters import Parameters


def plan_of(*shards: int, changed_ns: int = 1) -> Plan:
    """A plan of one file, with shards of so many rows."""
    file = InputFile(path=Path("/in.jsonl"), format="jsonl", size=9, changed_ns=changed_ns, rows=sum(shards))
    firsts = [sum(shards[:number]) for number in range(len(shards))]
    return Plan(
        files=(file,),
        shards=tuple(Shard(number=n, file=0, first=firsts[n], rows=rows) for n, rows in enumerate(shards)),
    )


class Ledgers:
    """Opens ledgers of one folder; the clock runs only by hand."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path, self._stack, self.now = path, stack, 1000.0

    def open(self, *shards: int, parameters: Parameters | None = None, **options: Any) -> Ledger:
        """One over shards of so many rows, closed after the test."""
        return self.enter(plan_of(*shards), parameters or Parameters(), **options)

    def changed(self, rows: list[list[str]], at: int) -> Ledger:
        """One over an input whose rows have these keys, by shard, and whose file was changed at `at`."""
        plan = plan_of(*map(len, rows), changed_ns=at)
        keys = [(plan.shards[n], i, key) for n, shard in enumerate(rows) for i, key in enumerate(shard)]
        return self.enter(plan, Parameters(), files=lambda: plan.files, keys=lambda plan: keys)

    def enter(self, plan: Plan, parameters: Parameters, **options: Any) -> Ledger:
        return self._stack.enter_context(Ledger(self.path, parameters, lambda: plan, clock=lambda: self.now, **options))

    def rewrite_sign(self, ledger: Ledger, **changes: object) -> None:
        """Have a driver's sign of life say something else, such as that it is on another machine."""
        path = self.path / "drivers" / f"{ledger._id}.json"
        sign = msgspec.json.decode(path.read_bytes(), type=Sign)
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(sign, **changes)))

    def silence(self, ledger: Ledger, *watching: Ledger) -> None:
        """Have a driver be one of another machine that gives no sign for longer than others wait."""
        self.rewrite_sign(ledger, host="far-away", boot="1" * 8)
        for driver in watching:
            assert driver.others
        self.now += 61


@pytest.fixture
def ledgers(tmp_path: Path) -> Iterator[Ledgers]:
    with ExitStack() as stack:
        yield Ledgers(tmp_path / "out.jsonl.ledger", stack)


def answer(index: int, text: str = "", key: str = "", tokens: int = 1) -> Record:
    raw = msgspec.Raw(msgspec.json.encode({"generated_text": text or f"answer {index}"}))
    return Record(index=index, key=key, answer=raw, prompt_tokens=2, completion_tokens=tokens)


def failure(index: int, why: str = "no") -> Record:
    return Record(index=index, error=why, status=400)


def texts(records: Iterable[Record]) -> list[str]:
    """The answers of rows, or their errors."""
    return [msgspec.json.decode(r.answer)["generated_text"] if r.answer is not None else r.error or "" for r in records]


def finish(ledger: Ledger, shard: Shard, by: str = "") -> Shard:
    """Answer the rows of a claimed shard that are not settled, and seal it."""
    for index in sorted(set(range(shard.rows)) - ledger.settled(shard)):
        ledger.append(shard, answer(index, f"{by}{index}"))
    ledger.seal(shard)
    return shard
