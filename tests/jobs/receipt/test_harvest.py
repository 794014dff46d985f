"""What backfill pools were expected to serve, and have served."""

import msgspec

from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.receipt.harvest import Harvest, HarvestLine, harvest, harvests
from slurminfer.jobs.receipt.ledger import Ledger

from .test_receipt import receipt, worker

SPEC = """
name = "d"
[model]
path = "/models/m"
[[pool]]
name = "a"
backfill = true
time_min = "20"
max_workers = 2
"""


def job(number: int, **fields):
    """A worker of four GPUs that was expected to serve for an hour, and has served for three quarters of one."""
    return worker(str(number), **{"predicted_s": 3600.0, **fields})


def noted(*jobs) -> Harvest:
    return Harvest({usage.key: usage for usage in jobs})


def test_predicted_and_achieved_hours_are_added_up_by_pool():
    found = harvests(
        [
            job(1),
            job(2, ended_at=None),
            job(3, pool="b", gpus=0, nodes=2),
            worker("4"),
            job(5, running_s=0.0, loading_s=0.0),
        ]
    )
    assert found == [
        HarvestLine(pool="a", unit="GPU", jobs=3, running=1, predicted_hours=12.0, achieved_hours=6.0),
        HarvestLine(pool="b", unit="node", jobs=1, predicted_hours=2.0, achieved_hours=1.5),
    ]
    assert str(found[0]) == "pool a: predicted 12.0 GPU-hours in 3 jobs (1 not over yet), achieved 6.00"
    assert str(found[1]) == "pool b: predicted 2.00 node-hours in 1 job, achieved 1.50"


def test_the_receipt_has_a_line_for_each_backfill_pool():
    assert receipt([worker("1")]).harvests == ()
    assert [line.pool for line in receipt([job(1), job(2)]).harvests] == ["a"]


def test_since_a_time_only_what_came_later_counts():
    running = job(1, ended_at=None, running_s=1800.0)
    before = noted(running, job(2))
    after = noted(msgspec.structs.replace(running, running_s=3600.0, ended_at=4600.0), job(2), job(3))
    assert after.since(before) == [HarvestLine(pool="a", unit="GPU", jobs=2, predicted_hours=7.0, achieved_hours=5.0)]
    assert after.since(after) == []


def test_it_is_read_from_the_run_directory(tmp_path):
    run = RunDirectory(tmp_path / "d")
    run.create()
    Ledger(run).append([job(1), worker("2")])
    Ledger(run).write_living([job(3, ended_at=None)])
    (line,) = harvest(run, parse_spec(SPEC)).lines()
    assert (line.jobs, line.running) == (2, 1)
    assert harvest(run, parse_spec(SPEC.partition("backfill")[0])).lines() == []
