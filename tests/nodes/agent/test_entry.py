"""Whether the job of an agent that has ended may go back to the queue."""

from types import SimpleNamespace
from typing import Any

import pytest

from slurminfer.nodes.agent import entry
from slurminfer.nodes.agent.hooks import Hooks


@pytest.mark.parametrize("backfill", [False, True])
def test_the_job_of_a_backfill_pool_never_goes_back_to_the_queue(backfill):
    handed_back: list[float | None] = []
    task: Any = SimpleNamespace(
        signals=SimpleNamespace(hand_back=lambda ends_at, _: handed_back.append(ends_at)),
        place=SimpleNamespace(ends_at=7.0),
        pool=SimpleNamespace(backfill=backfill),
        hooks=Hooks(),
        obey=lambda: None,
    )
    entry._end(task)
    assert handed_back == ([] if backfill else [7.0])
