"""Which batches are at work."""

from slurminfer.jobs.batch.openai.turns import LEAST_TURN_S, MOST_AT_WORK, TURN_S, AtWork, Waiting, to_start, to_stop


def waiting(*tenants):
    return [Waiting(id=f"w{n}", tenant=tenant) for n, tenant in enumerate(tenants)]


def at_work(*tenants, **fields):
    return [AtWork(id=f"b{n}", tenant=tenant, since=float(n), **fields) for n, tenant in enumerate(tenants)]


def test_as_many_as_there_is_room_for():
    assert to_start(waiting(*"aaaaaa"), []) == ["w0", "w1", "w2", "w3"]
    assert to_start(waiting("a"), at_work(*"aaaa")) == []
    assert to_start(waiting("a", "b"), at_work(*"aaa")) == ["w1"], "the tenant with fewer"
    assert to_start(waiting(*"aaab"), []) == ["w0", "w3", "w1", "w2"]


def test_whoever_had_a_turn_goes_to_the_end():
    batches = [Waiting(id="0", tenant="a", rested_at=5.0), Waiting(id="1", tenant="a", rested_at=2.0), *waiting("a")]
    assert to_start(batches, at_work(*"aaa")) == ["w0"]
    assert to_start(batches[:2], at_work(*"aaa")) == ["1"]


def test_a_tenant_with_many_makes_room_for_another_soon():
    working = at_work(*"aaaa")
    assert to_stop(waiting("b"), working, LEAST_TURN_S - 1) is None
    assert to_stop(waiting("b"), working, LEAST_TURN_S) == "b0"
    assert to_stop(waiting("b"), at_work(*"caaa"), LEAST_TURN_S + 3) == "b1", "of the tenant with most"


def test_turns_end_where_everybody_has_as_many():
    working = at_work(*"abcd")
    assert to_stop(waiting("e"), working, TURN_S - 1) is None
    assert to_stop(waiting("e"), working, TURN_S) == "b0"
    assert to_stop(waiting("a"), at_work(*"aaaa"), TURN_S) == "b0"


def test_nobody_makes_room_for_nobody_or_twice():
    assert to_stop([], at_work(*"aaaa"), 10 * TURN_S) is None
    assert to_stop(waiting("b"), at_work(*"aaa"), 10 * TURN_S) is None
    assert to_stop(waiting("b"), at_work(*"aaaa", is_stopping=True), 10 * TURN_S) is None
    assert MOST_AT_WORK == 4
