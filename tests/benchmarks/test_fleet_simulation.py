"""Two simulated days of a fleet: what must hold after every look, and what others do under the same events."""

from functools import cache
from typing import Any

from benchmarks.fleet.simulate.baselines import Chain
from benchmarks.fleet.simulate.ours import Ours
from benchmarks.fleet.simulate.simulation import Simulation
from benchmarks.fleet.simulate.tick import measure


@cache
def two_days(seed: str) -> dict[str, Any]:
    """Two days of ours, which several tests look at: they take two seconds of a CPU."""
    return Simulation(Ours, 2.0, seed).run()


def test_the_invariants_hold_after_every_look():
    """Of the days that the other tests look at; the benchmark has thirty days of other events."""
    figures = two_days("a")
    assert figures["invariants"] == {"looks": 5760, "broken": {}}
    assert figures["restarts"] > 0
    assert all(row["cut"] == 0 for row in figures["pools"].values())


def test_harvested_jobs_cost_other_people_and_other_pools_nothing():
    with_them, without = two_days("a"), Simulation(Ours, 2.0, "a", harvests=False).run()
    harvest = with_them["harvest"]["holes"]
    assert harvest["lines_done"] > 0 and harvest["preempted"] > 0 and harvest["missed"] > 0
    assert harvest["predicted_gpu_hours"] >= harvest["achieved_gpu_hours"] > 0
    assert with_them["others"] == without["others"]
    assert with_them["pools"]["holes"]["jobs"] == harvest["jobs"]
    assert {name: row for name, row in with_them["pools"].items() if name != "holes"} == without["pools"]


def test_more_is_there_than_with_chains_under_the_same_events():
    ours, chain = two_days("a")["pools"], Simulation(Chain, 2.0, "a").run()["pools"]
    for pool in ("chat", "code"):
        assert ours[pool]["requests"] == chain[pool]["requests"]
        assert ours[pool]["enough"] > chain[pool]["enough"]
    assert chain["peak"]["cut"] > 0


def test_a_look_at_many_workers_can_be_measured():
    figures = measure(50)
    assert figures["workers"] == 50 and figures["first_s"] > 0 and figures["decide_s"] >= 0
