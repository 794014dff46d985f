"""The batches that the status page shows."""

from slurminfer.core.batches import STALE_S, BatchRecord
from slurminfer.router.fleet.batches import Batches


def record(batch="b", **fields):
    given = {"name": "out", "written_at": 5.0, "began_at": 2.0, "total": 10, "answered": 4, "failed": 1}
    return BatchRecord(batch=batch, **{**given, **fields})


def test_drivers_of_one_batch_are_one_line():
    batches = Batches(lambda: 0.0)
    batches.hear({
        "one": record(in_flight=4, completion_tokens_per_s=10.0, prompt_tokens_per_s=5.0, left_s=9.0),
        "two": record(began_at=1.0, answered=5, in_flight=3, completion_tokens_per_s=20.0, left_s=7.0),
        "three": record("c", name="another"),
    })  # fmt: skip
    other, both = batches.all()
    assert other.name == "another"
    assert (both.answered, both.in_flight, both.completion_tokens_per_s, both.prompt_tokens_per_s) == (5, 7, 30.0, 5.0)
    assert both.began_at == 1.0 and both.left_s == 7.0


def test_a_driver_that_is_silent_is_not_shown_whatever_its_clock_says():
    now = [0.0]
    batches = Batches(lambda: now[0])
    batches.hear({"one": record(written_at=10**9)})
    now[0] = STALE_S
    batches.hear({"one": record(written_at=10**9)})
    assert len(batches.all()) == 1
    now[0] = STALE_S + 1
    batches.hear({"one": record(written_at=10**9)})
    assert batches.all() == []
    batches.hear({"one": record(written_at=3.0)})
    assert len(batches.all()) == 1
    batches.hear({})
    assert batches.all() == []
