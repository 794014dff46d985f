"""How much workers in holes of the schedule could compute, as /workers says it to a batch."""

from types import SimpleNamespace
from typing import Any

import pytest

from slurminfer.core.records import PoolRecord
from slurminfer.core.spec.files import parse_spec
from slurminfer.router.api import workers

SPEC = parse_spec("""
name = "d"
[model]
path = "/models/m"
[[pool]]
name = "chat"
max_workers = 9
[[pool]]
name = "holes"
backfill = true
max_workers = 3
time_min = "20"
""")


def ready(pool, choosable=True):
    return SimpleNamespace(record=SimpleNamespace(pool=pool), choosable=choosable)


@pytest.mark.parametrize(
    ("record", "there", "added"),
    [
        (PoolRecord(capacity=8), [], 24),
        (PoolRecord(), [], 96),  # 32 each, until one has told
        (PoolRecord(capacity=8), [ready("holes"), ready("holes", choosable=False), ready("chat")], 16),
        (PoolRecord(capacity=8, gave_up=True), [], 0),
        (None, [], 0),
    ],
)
def test_workers_of_backfill_pools_that_are_not_there_count(record, there, added):
    sources: Any = SimpleNamespace(
        spec=SPEC,
        registry=SimpleNamespace(all=lambda: there),
        controller=SimpleNamespace(pool=lambda name: record if name == "holes" else PoolRecord(capacity=50)),
    )
    assert workers.may_be_added(sources) == added
