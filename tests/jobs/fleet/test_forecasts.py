"""What Slurm is asked of further jobs, and when."""

from typing import Any

import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.fleet.forecasts import MOST_ASKED, TIMEOUT_S, Forecaster
from slurminfer.jobs.fleet.rules.desired import desired_of
from slurminfer.jobs.fleet.rules.observed import Demand, Member, Observed, Past, Stage, Start
from slurminfer.slurm.forecast import Forecast
from slurminfer.slurm.holes import Holes, IdleNode

from .looks import HOUR, NOW, ended, member, reserved

SPEC = """
name = "d"
[model]
path = "/models/m"
[[pool]]
name = "w"
workers = 1
time = "1-00:00:00"
{pool}
[router]
time = "7-00"
"""
ROUTER = member(9, id="router-9", pool="router", ends_at=NOW + 100 * HOUR, limit_s=168 * HOUR)


class Asked:
    """A forecaster and what it has asked, as roles and limits in seconds; Slurm says what the test puts here."""

    def __init__(self, path, pool: str = "") -> None:
        self.now, self.takes_s = 0.0, 0.0
        self.jobs: list[tuple[str, int]] = []
        self.answer: Forecast | SlurmError = Forecast(starts_at=NOW + 180.0)
        self.by_limit: dict[int, Forecast] = {}
        self.spec = parse_spec(SPEC.format(pool=pool))
        self.run = RunDirectory(path / "d")
        self.run.create()
        self.holes: Holes | SlurmError = Holes(idle={})
        self.forecaster = Forecaster(self.run, self._ask, lambda: self.now, self._ask_holes)

    def _ask_holes(self):
        if isinstance(self.holes, SlurmError):
            raise self.holes
        return self.holes

    def _ask(self, request):
        self.jobs.append((request.role, request.time_s))
        self.now += self.takes_s
        answer = self.by_limit.get(request.time_s, self.answer)
        if isinstance(answer, SlurmError):
            raise answer
        return answer

    def look(self, *members: Member, later_s: float = 0.0, has_walltime: bool = True, **seen):
        """What is known after one look, so many seconds after the one before."""
        self.now += later_s
        desired = desired_of(self.spec, {}, has_walltime=has_walltime)
        observed = Observed(members=(ROUTER, *members), **seen)
        return self.forecaster.forecasts(self.spec, desired, observed, NOW + self.now)


def test_for_a_missing_worker_slurm_is_asked_for_the_very_job(tmp_path):
    asked = Asked(tmp_path)
    asked.run.take_serials(["w-0", "w-1"])
    found = asked.look()
    assert asked.jobs == [("w-2", 24 * 3600)]
    assert found["w"].starts == (Start(time_s=24 * HOUR, wait_s=180.0),) and found["w"].asked_at == NOW


def test_a_pool_with_a_choice_is_asked_for_each_limit_the_longest_first(tmp_path):
    asked = Asked(tmp_path, 'time_min = "01:30:00"')
    asked.by_limit = {24 * 3600: Forecast(reason="QOSMaxWallDurationPerJobLimit")}
    starts = asked.look()["w"].starts
    assert [one.time_s / HOUR for one in starts] == [24, 12, 6, 3, 1.5]
    assert starts[0] == Start(time_s=24 * HOUR, reason="QOSMaxWallDurationPerJobLimit") and starts[1].wait_s == 180.0


def test_what_slurm_said_is_kept_for_a_while(tmp_path):
    asked = Asked(tmp_path)
    assert asked.look(later_s=1.0)["w"] == asked.look(later_s=50.0)["w"] and len(asked.jobs) == 1
    asked.look(later_s=20.0)
    assert len(asked.jobs) == 2  # while a worker is missing, the queue of a minute ago is an old one
    near = member(0, ends_at=NOW + 5 * HOUR)
    for later_s, number in ((60.0, 2), (230.0, 2), (10.0, 3)):
        asked.look(near, later_s=later_s)
        assert len(asked.jobs) == number


@pytest.mark.parametrize(
    ("members", "seen", "is_asked"),
    [
        ((member(0),), {}, False),  # it has most of its time before it
        ((member(0, ends_at=NOW + 11 * HOUR),), {}, True),
        ((member(0, ends_at=NOW + 11 * HOUR), member(1, replaces="w-0")), {}, False),
        ((member(0, limit_s=HOUR, ends_at=NOW + 0.9 * HOUR),), {}, False),
        ((member(0, Stage.PENDING),), {}, False),
        ((member(0, hung_since=NOW),), {}, True),
        ((member(0, Stage.LEAVING),), {}, True),
        ((), {"past": {"w": Past(ended=(ended(0, 50.0, is_final=True),))}}, False),  # it has given up
        ((), {"has_walltime": False}, False),
    ],
)
def test_only_pools_that_could_need_a_job_soon_are_asked_for(tmp_path, members, seen, is_asked):
    asked = Asked(tmp_path)
    assert bool(asked.look(*members, **seen)) == is_asked == bool(asked.jobs)


def test_a_pool_whose_requests_wait_is_asked_for(tmp_path):
    asked = Asked(tmp_path, "max_workers = 2")
    assert not asked.look(member(0), demand={"w": Demand(in_flight=3)})
    assert asked.look(member(0), demand={"w": Demand(in_flight=3, waiting=1)})


def test_the_router_is_asked_for_too(tmp_path):
    asked = Asked(tmp_path)
    desired = desired_of(asked.spec, {}, has_walltime=True)
    assert asked.forecaster.forecasts(asked.spec, desired, Observed(members=(member(0),)), NOW).keys() == {"router"}
    assert asked.jobs == [("router", 7 * 24 * 3600)]


def test_one_look_asks_a_few_times_and_the_next_one_goes_on(tmp_path):
    second = '\n[[pool]]\nname = "v"\ntime = "1-00:00:00"\ntime_min = "01:30:00"'
    asked = Asked(tmp_path, f'time_min = "01:30:00"{second}')
    assert asked.look().keys() == {"w"} and len(asked.jobs) <= MOST_ASKED
    assert asked.look(later_s=10.0).keys() == {"w", "v"} and len(asked.jobs) == 10


def test_what_slurm_does_not_say_is_unknown_and_not_asked_at_once_again(tmp_path):
    asked = Asked(tmp_path, 'time_min = "01:30:00"')
    asked.answer = SlurmError("sbatch: no answer")
    assert asked.look() == {} == asked.look(later_s=100.0) and len(asked.jobs) == 1
    asked.answer = Forecast(starts_at=NOW)
    assert asked.look(later_s=250.0).keys() == {"w"}
    asked.answer = SlurmError("sbatch: no answer")
    assert asked.look(later_s=100.0) == {}


def test_a_slow_slurm_is_not_asked_again_and_again(tmp_path):
    asked = Asked(tmp_path, 'time_min = "01:30:00"')
    asked.takes_s = TIMEOUT_S - 1
    assert asked.look() == {} and len(asked.jobs) == 2


def test_a_forecast_that_was_made_long_ago_is_none(tmp_path):
    asked = Asked(tmp_path)
    assert asked.look() and asked.look(member(0), later_s=500.0) and not asked.look(member(0), later_s=200.0)


def test_before_a_maintenance_the_job_is_asked_for_that_can_end_before(tmp_path):
    asked = Asked(tmp_path)
    asked.look(reserved=reserved(NOW + 8 * HOUR))
    assert asked.jobs == [("w-0", 7 * 3600)]


BACKFILL = 'backfill = true\ntime_min = "12:00:00"\nmax_workers = 4'
WORK: dict[str, Any] = {"demand": {"w": Demand(waiting=9)}, "past": {"w": Past(wanted=4)}}


def test_for_a_backfill_pool_slurm_is_asked_again_once_the_job_before_has_started(tmp_path):
    asked = Asked(tmp_path, BACKFILL)
    first = {"submitted_at": NOW + 1.0, "since": NOW + 1.0}
    assert asked.look(**WORK)["w"].asked_at == NOW
    asked.look(member(0, Stage.PENDING, **first), later_s=10.0, **WORK)
    assert len(asked.jobs) == 2, "both candidates, once: none starts now"
    assert asked.look(member(0, Stage.STARTING, **first), later_s=10.0, **WORK)["w"].asked_at == NOW + 20
    assert asked.look(member(0, Stage.STARTING, **first), later_s=10.0, **WORK)["w"].asked_at == NOW + 20
    assert asked.look(member(0, Stage.STARTING, **first), later_s=50.0, **WORK)["w"].asked_at == NOW + 80


def test_for_a_backfill_pool_without_work_slurm_is_not_asked(tmp_path):
    asked = Asked(tmp_path, BACKFILL)
    assert asked.look(member(0, hung_since=NOW), past={"w": Past(wanted=1)}, demand={"w": Demand()}) == {}
    assert asked.jobs == []


@pytest.mark.parametrize(
    ("hole_s", "expected"),
    [
        (24 * HOUR, {24.0: 0.0}),
        (24 * HOUR - 1, {24.0: 180.0, 24 - 1 / 60: 0.0}),
        (12 * HOUR, {24.0: 180.0, 12.0: 0.0}),
        (12 * HOUR - 1, {24.0: 180.0, 12.0: 180.0}),
    ],
)
def test_a_job_of_a_backfill_pool_starts_now_on_nodes_that_are_idle_for_long_enough(tmp_path, hole_s, expected):
    asked = Asked(tmp_path, BACKFILL)
    asked.holes = Holes(idle={"cpu": {"n1": IdleNode(1)}}, default="cpu", planned={"n1": NOW + hole_s + 60})
    starts = asked.look(**WORK)["w"].starts
    assert [(start.time_s / HOUR, start.wait_s) for start in starts] == list(expected.items())
    assert [start.room for start in starts] == [None if start.wait_s else 1 for start in starts]


def test_of_a_job_that_slurm_would_refuse_holes_say_nothing_and_without_holes_nothing_is_known(tmp_path):
    asked = Asked(tmp_path, BACKFILL)
    asked.holes = Holes(idle={"cpu": {"n1": IdleNode(1)}}, default="cpu")
    asked.answer = Forecast(reason="invalid account")
    assert {start.wait_s for start in asked.look(**WORK)["w"].starts} == {None}
    asked.answer, asked.holes = Forecast(starts_at=NOW + 900.0), SlurmError("sinfo: away")
    assert "w" not in asked.look(later_s=60.0, **WORK)


def test_for_a_backfill_pool_slurm_is_asked_no_more_than_it_takes_to_find_the_longest_that_starts_now(tmp_path):
    for now_s, asked_hours in ((24, [24]), (6, [24, 3, 12, 6]), (3, [24, 3, 12, 6]), (1, [24, 3])):
        asked = Asked(tmp_path / f"{now_s}", BACKFILL.replace("12:00:00", "03:00:00"))
        asked.answer = Forecast(starts_at=NOW + 900.0)
        asked.by_limit = {hours * 3600: Forecast(starts_at=NOW) for hours in (24, 12, 6, 3) if hours <= now_s}
        starts = asked.look(**WORK)["w"].starts
        assert [limit / 3600 for _, limit in asked.jobs] == asked_hours
        assert max((one.time_s / HOUR for one in starts if one.wait_s == 0.0), default=1) == now_s
