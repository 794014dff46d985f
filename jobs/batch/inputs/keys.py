"""The keys of all rows of an input, for a ledger that looks up the rows of an input that has changed."""

from collections.abc import Iterator

from .building import Builder
from .plan import Plan, Shard
from .reader import Reader
from .request import BadRowError


def keys_of(builder: Builder, plan: Plan) -> Iterator[tuple[Shard, int, str]]:
    """Shard, number within it and key of each row that asks for something, in order. Raises BatchError."""
    reader = Reader(plan, builder.columns)
    try:
        for shard in plan.shards:
            for row in reader.rows(shard):
                if row.value is not None:
                    try:
                        yield shard, row.index, builder.build(row).key
                    except BadRowError:
                        continue
    finally:
        reader.close()
