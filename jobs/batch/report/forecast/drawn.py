"""Some rows drawn from all of an input, the same ones each time, without reading all of it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ...inputs.plan import Plan, Shard
from ...inputs.request import BadRowError, BatchRequest
from ...inputs.row import Row

MOST_DRAWN = 300
_MOST_SHARDS = 64
_FIRST_ROWS = 512  # of a shard: where one begins is arbitrary, so these are like any others
_SEED = 300


class RowReader(Protocol):
    """What is needed of a Reader."""

    def rows(self, shard: Shard) -> Iterator[Row]:
        """The rows of a shard, one by one."""


class RequestBuilder(Protocol):
    """What is needed of a Builder."""

    def build(self, row: Row) -> BatchRequest:
        """What a row asks for. Raises BadRowError, ValueError, TypeError, OverflowError, RecursionError."""


@dataclass
class Drawn:
    """Rows that were drawn, in the order of the input."""

    requests: list[BatchRequest] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # of rows that ask for nothing that can be done
    blank: int = 0


def draw(plan: Plan, reader: RowReader, builder: RequestBuilder, most: int = MOST_DRAWN) -> Drawn:
    """Up to `most` rows from up to 64 shards that are spread over the whole input. Raises BatchError."""
    found, generator = Drawn(), random.Random(_SEED)
    shards = _spread(plan.shards, _MOST_SHARDS)
    whole = plan.rows <= most
    for number, shard in enumerate(plan.shards if whole else shards):
        reach = shard.rows if whole else min(shard.rows, _FIRST_ROWS)
        share = most * (number + 1) // len(shards) - most * number // len(shards)
        wanted = set(range(reach)) if whole else set(generator.sample(range(reach), min(reach, share)))
        _take(shard, wanted, reader, builder, found)
    return found


def _take(shard: Shard, wanted: set[int], reader: RowReader, builder: RequestBuilder, found: Drawn) -> None:
    if not wanted:
        return
    last = max(wanted)
    for row in reader.rows(shard):
        if row.index in wanted:
            _add(row, builder, found)
        if row.index >= last:
            return


def _add(row: Row, builder: RequestBuilder, found: Drawn) -> None:
    if row.is_blank:
        found.blank += 1
    elif row.problem is not None:
        found.problems.append(f"{row.place}: {row.problem}")
    else:
        try:
            found.requests.append(builder.build(row))
        except (BadRowError, ValueError, TypeError, OverflowError, RecursionError) as error:
            found.problems.append(f"{row.place}: {error}")


def _spread(shards: tuple[Shard, ...], most: int) -> list[Shard]:
    """At most so many shards that have rows, evenly spread, the first and the last one among them."""
    having = [shard for shard in shards if shard.rows]
    if len(having) <= most:
        return having
    return [having[index * (len(having) - 1) // (most - 1)] for index in range(most)]
