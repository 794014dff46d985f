"""Which workers of its own a batch gives back, and when."""

import pytest

from slurminfer.core.records import FleetRecord, PoolRecord, WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.batch.endpoints import release as module
from slurminfer.jobs.batch.endpoints.release import PoolLoad, Release, loads, surplus


def pool(busy, wanted=4, capacity=8, name="w"):
    return PoolLoad(name=name, wanted=wanted, busy=busy, capacity=capacity)


@pytest.mark.parametrize(
    ("load", "left", "expected"),
    [
        (pool(4), 1000, {}),
        (pool(4), 1, {}),  # all compute: none is taken away from its requests
        (pool(2), 17, {"w": 3}),  # 16 fit into the two that compute, one more is needed
        (pool(2), 16, {"w": 2}),
        (pool(2), 25, {}),
        (pool(0), 8, {"w": 1}),
        (pool(3, capacity=None), 1, {}),  # nobody knows how much a worker computes
        (pool(0), 0, {}),  # the end: the deployment is stopped as a whole
        (pool(1, wanted=1), 1, {}),
        (pool(1, wanted=9), 4, {"w": 1}),  # those that wait in Slurm's queue, too
    ],
)
def test_a_worker_is_given_back_when_the_others_can_compute_all_that_is_left(load, left, expected):
    assert surplus([load], left) == expected


def test_earlier_pools_keep_their_workers():
    pools = [pool(1, wanted=2, name="a"), pool(1, wanted=2, name="b", capacity=None), pool(0, wanted=2, name="c")]
    assert surplus(pools, 24) == {"b": 1, "c": 0}
    assert surplus(pools, 16) == {"a": 1, "b": 1, "c": 0}


@pytest.mark.parametrize("left", range(1, 60))
@pytest.mark.parametrize("busy", range(5))
def test_what_is_kept_is_enough(busy, left):
    kept = surplus([pool(busy)], left).get("w", 4)
    assert kept >= min(busy, 4) and (kept * 8 >= left or kept == 4)
    assert kept == 4 or (kept - 1) * 8 < left or kept == busy, "and no more"


@pytest.fixture
def run(tmp_path):
    found = RunDirectory(tmp_path / "demo")
    found.create()
    found.write_spec(parse_spec('name = "demo"\n[model]\npath = "demo"\n[[pool]]\nname = "w"\nworkers = 3\n'))
    found.write_fleet(FleetRecord(written_at=0.0, pools={"w": PoolRecord(wanted=3), "router": PoolRecord(wanted=1)}))
    for serial in range(3):
        record = WorkerRecord(
            id=f"w-{serial}", pool="w", engine="native", model="m", state=WorkerState.READY, host="h", job="1",
            epoch=0, pid=1, updated_at=0.0, capacity=4,
        )  # fmt: skip
        found.write_worker(record)
    return found


def test_a_look_asks_the_controller_for_fewer_and_a_new_driver_for_what_the_spec_says(run, monkeypatch):
    page = {"workers": [{"id": f"w-{serial}", "in_flight": 2 if serial == 0 else 0} for serial in range(3)]}
    monkeypatch.setattr(module, "ask_router", lambda run, router, *paths: [page])
    asked = []

    def scale(run, pool, number):
        asked.append((pool, number))
        record = run.read_scale()
        pinned = {} if number == "auto" else {pool: int(number)}
        run.write_scale(type(record)(pinned=pinned))
        return ""

    monkeypatch.setattr(module, "scale", scale)
    left = [100]
    release = Release(run, lambda: left[0])
    release.begin()
    assert release.look() == {} and asked == []
    left[0] = 8
    assert release.look() == {"w": 2} and asked == [("w", "2")]
    assert release.look() == {}, "what was asked for is not asked for again"
    left[0] = 4
    assert release.look() == {"w": 1}
    Release(run, lambda: None).begin()
    assert asked[-1] == ("w", "auto")


def test_without_a_reading_nobody_is_sent_away(run, monkeypatch):
    monkeypatch.setattr(module, "ask_router", lambda *_: None)
    assert Release(run, lambda: 1).look() == {}
    assert Release(run, lambda: None).look() == {}


def test_a_pool_is_as_large_as_somebody_has_asked_for(run):
    found = loads(run.read_workers(), {"w-1": 3}, {"w": 3, "router": 1}, {"w": 2})
    assert found == [PoolLoad(name="w", wanted=2, busy=1, capacity=4)]
