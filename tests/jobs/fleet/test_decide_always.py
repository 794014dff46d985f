"""What holds for every fleet that can be seen."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.jobs.fleet.rules.actions import Cancel, Drain, Submit, Want
from slurminfer.jobs.fleet.rules.decide import SILENT_S, decide
from slurminfer.jobs.fleet.rules.desired import Desired, PoolPlan
from slurminfer.jobs.fleet.rules.observed import Demand, Ended, Member, Observed, Past, PoolForecast, Stage, Start

from .looks import HOUR, NOW, by_kind, member, reserved

EXAMPLES = settings(max_examples=100, derandomize=True)
AGES = st.sampled_from([0.0, 3.0, 60.0, 200.0, 4000.0])
MAYBE = st.sampled_from([None, None, None, 10.0, 500.0])


@st.composite
def plans(draw) -> PoolPlan:
    fewest, more = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    return PoolPlan(
        name="w",
        model="m",
        fewest=fewest,
        most=fewest + more,
        initial=draw(st.integers(fewest, fewest + more)),
        time_s=draw(st.sampled_from([900.0, HOUR, 24 * HOUR])),
        hours_per_day=draw(st.sampled_from([None, 10.0])),
        most_pending=draw(st.integers(1, 12)),
    )


@st.composite
def fleets(draw) -> tuple[Member, ...]:
    found: list[Member] = []
    for number in range(draw(st.integers(0, 9))):
        stage = draw(st.sampled_from(Stage))
        earlier = sorted({one.id for one in found} - {one.replaces for one in found})
        found.append(
            member(
                number,
                stage,
                since=NOW - draw(AGES),
                ends_at=None if stage is Stage.PENDING else NOW + draw(st.sampled_from([100.0, 1500.0, 20 * HOUR])),
                replaces=draw(st.sampled_from([*earlier, ""])) if draw(st.booleans()) else "",
                silent_since=None if stage is Stage.PENDING else _before(draw(MAYBE)),
                hung_since=_before(draw(MAYBE)) if stage is Stage.READY else None,
                obstacle=draw(st.sampled_from(["", "", "", "no node"])) if stage is Stage.PENDING else "",
            )
        )
    return tuple(found)


@st.composite
def pasts(draw) -> Past:
    failures = draw(st.lists(st.sampled_from([5.0, 300.0, 900.0, 5000.0]), max_size=4))
    return Past(
        wanted=draw(st.one_of(st.none(), st.integers(0, 12))),
        enough_since=draw(st.sampled_from([None, NOW - 1000.0])),
        load_s=draw(st.sampled_from([None, 100.0])),
        wait_s=draw(st.sampled_from([0.0, HOUR])),
        hours_today=draw(st.sampled_from([0.0, 9.0, 10.0])),
        ended=tuple(
            Ended(id=f"w-{90 + number}", pool="w", at=NOW - ago, submitted_at=NOW - ago - 60)
            for number, ago in enumerate(sorted(failures, reverse=True))
        ),
    )


@st.composite
def looks(draw) -> Observed:
    waiting = draw(st.integers(0, 40))
    demand = Demand(
        in_flight=draw(st.integers(0, 60)), waiting=waiting, waited_s=draw(AGES) if waiting else 0.0, idle_s=draw(AGES)
    )
    return Observed(
        members=draw(fleets()),
        demand=draw(st.sampled_from([None, {"w": demand}])),
        past={"w": draw(pasts())},
        reserved=draw(st.sampled_from([{}, {}, reserved(NOW + 1000), reserved(NOW + 10 * HOUR)])),
    )


PINNED = st.sampled_from([{}, {}, {"w": 3}])


@EXAMPLES
@given(plans(), looks(), PINNED)
def test_what_was_done_is_not_done_again(plan, observed, pinned):
    desired = Desired((plan,), pinned)
    done = decide(desired, observed, NOW)
    again = by_kind(decide(desired, _after(observed, done), NOW))
    before = by_kind(done)
    first, second = ([action.workers for action in one[Want]] for one in (before, again))
    if first and second:  # a step that has a bound may be followed by the next one
        number = plan.initial if observed.past["w"].wanted is None else observed.past["w"].wanted
        assert (second[0] - first[0]) * (first[0] - min(max(number, plan.fewest), plan.most)) >= 0
        return
    assert not again[Drain]
    assert {action.worker for action in again[Cancel]} <= {action.worker for action in before[Cancel]}
    if before[Submit] and not before[Cancel] + before[Drain]:
        assert not again[Submit]


@EXAMPLES
@given(plans(), looks(), PINNED)
def test_the_number_of_workers_comes_to_rest(plan, observed, pinned):
    desired = Desired((plan,), pinned)
    for _ in range(12):
        observed = _after(observed, decide(desired, observed, NOW))
    assert not [action for action in decide(desired, observed, NOW) if isinstance(action, (Submit, Drain, Want))]


@EXAMPLES
@given(plans(), looks(), PINNED)
def test_nothing_is_done_without_a_reading(plan, observed, pinned):
    assert decide(Desired((plan,), pinned), msgspec.structs.replace(observed, members=None), NOW) == []


@EXAMPLES
@given(plans(), looks(), PINNED)
def test_submissions_are_bounded(plan, observed, pinned):
    submitted = by_kind(decide(Desired((plan,), pinned), observed, NOW))[Submit]
    pending = sum(one.stage is Stage.PENDING for one in observed.members or ())
    assert not submitted or (pending + len(submitted) <= plan.most_pending and len(submitted) <= 20)
    for submit in submitted:
        until = observed.reserved["w"].starts_at if observed.reserved else NOW + submit.time_s
        assert 0 < submit.time_s <= plan.time_s and NOW + submit.time_s <= until


@EXAMPLES
@given(plans(), looks(), PINNED)
def test_no_worker_that_serves_is_ended_below_the_number_that_is_wanted(plan, observed, pinned):
    actions = by_kind(decide(Desired((plan,), pinned), observed, NOW))
    wanted = _wanted(plan, observed, pinned, actions)
    told = {action.worker for action in actions[Drain]} | {action.worker for action in actions[Cancel]}
    serving = {one.id for one in observed.members or () if _serves(one)}
    assert not told & serving or len(serving - told) >= min(wanted, len(serving))


@EXAMPLES
@given(plans(), looks())
def test_where_hours_are_used_up_nothing_is_submitted_beyond_the_fewest(plan, observed):
    plan = msgspec.structs.replace(plan, hours_per_day=10.0)
    past = msgspec.structs.replace(observed.past["w"], hours_today=10.0)
    observed = msgspec.structs.replace(observed, past={"w": past})
    done = decide(Desired((plan,)), observed, NOW)
    staying = [one for one in _after(observed, done).members or () if one.stage is not Stage.LEAVING]
    ids = {one.id for one in staying}
    assert sum(one.replaces not in ids for one in staying) <= plan.fewest or not by_kind(done)[Submit]


@EXAMPLES
@given(plans(), fleets())
def test_silence_of_most_ends_nobody(plan, members):
    silent = tuple(msgspec.structs.replace(one, silent_since=NOW - 2 * SILENT_S, since=NOW) for one in members)
    running = [one for one in silent if one.stage is not Stage.PENDING]
    actions = by_kind(decide(Desired((plan,), {"w": 99}), Observed(members=silent, past={"w": Past()}), NOW))
    if len(running) > 1:
        assert not {action.worker for action in actions[Cancel]} & {one.id for one in running}
        assert not actions[Drain]


@st.composite
def forecasts(draw) -> dict[str, PoolForecast]:
    waits = draw(st.lists(st.sampled_from([None, 0.0, 60.0, 61.0, HOUR]), max_size=3))
    starts = tuple(Start(time_s=HOUR / 2**index, wait_s=wait) for index, wait in enumerate(waits))
    return draw(st.sampled_from([{}, {"w": PoolForecast(asked_at=NOW, starts=starts)}]))


@EXAMPLES
@given(plans(), looks(), forecasts(), PINNED)
def test_a_backfill_pool_never_stands_in_the_queue(plan, observed, said, pinned):
    plan = msgspec.structs.replace(plan, is_backfill=True, fewest=0, initial=0)
    observed = msgspec.structs.replace(observed, forecasts=said)
    members = tuple(msgspec.structs.replace(one, replaces="") for one in observed.members or ())
    observed = msgspec.structs.replace(observed, members=members)
    actions = decide(Desired((plan,), pinned), observed, NOW)
    done = by_kind(actions)
    for submit in done[Submit]:
        assert not submit.replaces and submit.predicted_s is not None
        (start,) = (one for one in said["w"].starts if one.time_s == submit.time_s)
        assert start.wait_s is not None and start.wait_s <= 60.0
    staying = [one for one in members if one.stage is not Stage.LEAVING]
    assert len(done[Submit]) <= max(1, len(staying))
    if any(one.stage is Stage.PENDING for one in staying) or not said:
        assert not done[Submit]
    late = {one.id for one in staying if one.stage is Stage.PENDING and NOW - one.since >= 180.0}
    assert late <= {action.worker for action in done[Cancel]}
    again = by_kind(decide(Desired((plan,), pinned), _after(observed, actions), NOW))
    assert not (done[Submit] and again[Submit])


def _before(ago_s: float | None) -> float | None:
    return None if ago_s is None else NOW - ago_s


def _serves(one: Member) -> bool:
    return one.stage is Stage.READY and one.hung_since is None and one.silent_since is None


def _wanted(plan, observed, pinned, actions) -> int:
    past = observed.past["w"]
    said = [action.workers for action in actions[Want]]
    wanted = pinned.get("w", said[0] if said else past.wanted)
    is_spent = plan.hours_per_day is not None and past.hours_today >= plan.hours_per_day
    return min(wanted, plan.fewest) if is_spent else wanted


def _after(observed: Observed, actions) -> Observed:
    """What is seen next, where everything was done and nothing else has happened."""
    members, past = {one.id: one for one in observed.members or ()}, observed.past["w"]
    for action in actions:
        if isinstance(action, Want):
            past = msgspec.structs.replace(past, wanted=action.workers, enough_since=action.enough_since)
        elif isinstance(action, Submit):
            number = 100 + len(members)
            members[f"w-{number}"] = member(
                number, Stage.PENDING, since=NOW, submitted_at=NOW, limit_s=action.time_s, replaces=action.replaces
            )
        elif isinstance(action, Drain):
            members[action.worker] = msgspec.structs.replace(members[action.worker], stage=Stage.LEAVING, since=NOW)
        elif isinstance(action, Cancel):
            members.pop(action.worker, None)
    return msgspec.structs.replace(observed, members=tuple(members.values()), past={"w": past})
