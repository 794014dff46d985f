"""What requests ask of each pool, from what relays report."""

import pytest

from slurminfer.core.spec.files import dump_spec, parse_spec
from slurminfer.router.control.messages import LaneLoad
from slurminfer.router.fleet.demand import Demand, PoolLoad
from slurminfer.router.fleet.outlook import Prospect

SPEC = parse_spec("""\
name = "test"
[model]
path = "small"
[[pool]]
name = "gpus"
[[pool]]
name = "cpus"
spill_after = 20
[[pool]]
name = "large"
[pool.model]
path = "large"
[[pool]]
name = "more"
""")


class World:
    """The demand at a time of the test's own."""

    def __init__(self):
        self.now = 1000.0
        self.demand = Demand(lambda: self.now)

    def pools(self, in_flight=None, served_at=None, spec=SPEC, **prospects):
        prospects = {pool.name: prospects.get(pool.name, Prospect.READY) for pool in spec.pool}
        return self.demand.of_pools(spec, in_flight or {}, served_at or {}, prospects)

    def asked(self, **prospects):
        """The pools for which something waits; those that are not named have no worker and get none."""
        others = {pool.name: Prospect.NONE for pool in SPEC.pool}
        return [
            name for name, pool in self.pools(**{**others, **prospects}).items() if pool.waiting and name in prospects
        ]


@pytest.fixture
def world():
    return World()


def lane(model="small", pools=(), waiting=0, waited_s=0.0, idle_s=0.0, **batch):
    return LaneLoad(model=model, pools=pools, waiting=waiting, waited_s=waited_s, idle_s=idle_s, **batch)


def test_what_waits_in_all_relays_counts_for_the_pools_of_its_model(world):
    world.demand.hear(0, [lane(waiting=2, waited_s=3.0)])
    world.demand.hear(1, [lane(waiting=1, waited_s=7.0)])
    world.now += 2
    pools = world.pools({"gpus": 4})
    assert pools["gpus"] == PoolLoad(in_flight=4, waiting=3, waited_s=9.0, idle_s=0.0)
    assert pools["large"] == PoolLoad(in_flight=0, waiting=0, waited_s=0.0, idle_s=2.0)


def test_a_rule_that_names_pools_asks_for_these_alone(world):
    world.demand.hear(0, [lane(model=None, pools=("large",), waiting=1)])
    assert {name: pool.waiting for name, pool in world.pools().items()} == {"gpus": 0, "cpus": 0, "large": 1, "more": 0}


def test_a_request_for_any_model_counts_for_every_pool(world):
    world.demand.hear(0, [lane(model=None, waiting=1, waited_s=30.0)])
    assert {pool.waiting for pool in world.pools().values()} == {1}


READY, COMING, ASLEEP, _ = Prospect


def test_of_the_pools_that_sleep_a_request_for_any_model_wakes_the_first_with_the_default_model(world):
    world.demand.hear(0, [lane(model=None, waiting=1)])
    assert world.asked(large=ASLEEP, more=ASLEEP) == ["more"]
    assert world.asked(gpus=ASLEEP, large=ASLEEP, more=ASLEEP) == ["gpus"]
    assert world.asked(large=ASLEEP) == ["large"]
    assert world.asked(gpus=ASLEEP, large=COMING) == ["large"]
    assert world.asked(gpus=ASLEEP, large=READY) == ["gpus", "large"]


def test_a_model_of_several_pools_that_sleep_wakes_one_and_the_next_where_that_cannot_come(world):
    world.demand.hear(0, [lane(pools=("more", "gpus"), waiting=1)])
    assert world.asked(gpus=ASLEEP, more=ASLEEP) == ["gpus"]
    assert world.asked(gpus=COMING, more=ASLEEP) == ["gpus"]
    assert world.asked(more=ASLEEP) == ["more"]
    assert world.asked(gpus=READY, more=ASLEEP) == ["gpus", "more"]


def test_a_pool_for_spill_over_that_sleeps_is_woken_at_its_own_time(world):
    world.demand.hear(0, [lane(waiting=1, waited_s=21.0)])
    assert world.asked(gpus=COMING, cpus=ASLEEP, more=ASLEEP) == ["gpus", "cpus"]


def test_a_pool_for_spill_over_is_asked_when_a_request_has_waited_for_so_long(world):
    world.demand.hear(0, [lane(waiting=5, waited_s=19.0)])
    assert (world.pools()["cpus"].waiting, world.pools()["gpus"].waiting) == (0, 5)
    world.now += 1
    assert (world.pools()["cpus"].waiting, world.pools()["cpus"].waited_s) == (5, 20.0)


def test_a_pool_for_spill_over_is_idle_while_the_others_serve_all(world):
    world.now += 100
    world.demand.hear(0, [lane()])
    pools = world.pools(served_at={"cpus": 1040.0})
    assert (pools["gpus"].idle_s, pools["cpus"].idle_s) == (0.0, 60.0)
    assert world.pools({"cpus": 1})["cpus"].idle_s == 0.0


def test_a_pool_is_idle_since_the_last_request_of_any_relay(world):
    world.now += 100
    world.demand.hear(0, [lane(idle_s=50.0)])
    world.demand.hear(1, [lane(idle_s=10.0)])
    world.now += 5
    assert world.pools()["gpus"].idle_s == 15.0
    world.demand.hear(1, [lane(idle_s=16.0)])
    assert world.pools()["gpus"].idle_s == 15.0


def test_without_a_report_a_pool_is_idle_since_the_router_started(world):
    world.now += 3
    assert world.pools()["gpus"].idle_s == 3.0


def test_what_waited_in_a_relay_that_has_ended_waits_no_more(world):
    world.demand.hear(0, [lane(waiting=2)])
    world.demand.ended(0)
    assert world.pools()["gpus"].waiting == 0


HOLES = """
[[pool]]
name = "holes"
backfill = true
time_min = "20"
max_workers = 4
"""
BACKFILL = parse_spec(dump_spec(SPEC) + HOLES)
ONLY_BACKFILL = parse_spec(f'name = "test"\n[model]\npath = "small"\n{HOLES}')


def test_what_a_batch_waits_for_is_asked_of_backfill_pools_and_the_rest_of_others(world):
    world.demand.hear(0, [lane(waiting=2, waited_s=3.0, batch_waiting=9, batch_waited_s=70.0)])
    pools = world.pools(spec=BACKFILL)
    assert {name: pool.waiting for name, pool in pools.items()} == {
        "gpus": 2,
        "cpus": 0,
        "large": 0,
        "more": 2,
        "holes": 9,
    }
    assert (pools["gpus"].waited_s, pools["holes"].waited_s) == (3.0, 70.0)


def test_without_a_choice_all_that_waits_counts(world):
    world.demand.hear(0, [lane(waiting=2, waited_s=3.0, batch_waiting=9, batch_waited_s=7.0)])
    assert world.pools()["gpus"] == PoolLoad(in_flight=0, waiting=11, waited_s=7.0, idle_s=0.0)
    assert world.pools(spec=ONLY_BACKFILL)["holes"].waiting == 11


def test_a_rule_may_send_all_requests_to_a_backfill_pool(world):
    world.demand.hear(0, [lane(pools=("holes",), waiting=2), lane(pools=("gpus",), batch_waiting=3)])
    pools = world.pools(spec=BACKFILL)
    assert (pools["holes"].waiting, pools["gpus"].waiting) == (2, 3)


def test_a_backfill_pool_is_idle_while_other_pools_serve_all_unless_it_is_alone(world):
    world.now += 100
    world.demand.hear(0, [lane()])
    assert world.pools(spec=BACKFILL, served_at={"holes": 1040.0})["holes"].idle_s == 60.0
    assert world.pools(spec=ONLY_BACKFILL)["holes"].idle_s == 0.0
