"""Seal nearly all shards of a ledger with made-up answers: python -m benchmarks.batch.fill OUTPUT LEFT.

By the ledger's own code: claims, records, seals. Several processes may do so at once. LEFT shards, spread over the
batch, stay as they are. The answer of a row is what the stub endpoint would say.
"""

import sys
from pathlib import Path

import msgspec

from slurminfer.jobs.batch.batch import ledger_of
from slurminfer.jobs.batch.inputs.plan import Plan, Shard
from slurminfer.jobs.batch.ledger.folder import read_batch
from slurminfer.jobs.batch.ledger.ledger import Ledger
from slurminfer.jobs.batch.ledger.record import Record

_ANSWER = b'{"text":"%d","finish_reason":"stop","usage":{"prompt_tokens":12,"cached_tokens":0,"completion_tokens":4}}'


def left(shards: int, count: int) -> set[int]:
    """Numbers of `count` shards, spread evenly."""
    return {shards * place // count for place in range(count)}


def fill(output: Path, count: int) -> int:
    """Seal what is free, but for `count` shards; how many rows that were."""
    path, rows = ledger_of(output), 0
    begun = read_batch(path)
    assert begun is not None, f"{path}: the batch has not begun"
    with Ledger(path, begun.parameters, _no_plan, retry_failed=False) as ledger:
        kept = left(len(ledger.plan.shards), count)
        while (shard := ledger.claim(lambda one: one.number not in kept)) is not None:
            _answer(ledger, shard)
            rows += shard.rows
    return rows


def _answer(ledger: Ledger, shard: Shard) -> None:
    done = ledger.settled(shard)
    for index in range(shard.rows):
        if index not in done:
            number = shard.first + index
            answer = msgspec.Raw(_ANSWER % number)
            ledger.append(
                shard,
                Record(index=index, key=f"{number:032x}", answer=answer, prompt_tokens=12, completion_tokens=4),
            )
    ledger.seal(shard)


def _no_plan() -> Plan:
    raise AssertionError("the batch has begun, so it has a plan")


if __name__ == "__main__":
    print(fill(Path(sys.argv[1]), int(sys.argv[2])))
