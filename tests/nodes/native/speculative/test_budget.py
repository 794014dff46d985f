"""How many guesses are made: worth their rows, bounded, and never given up for good."""

import pytest

from slurminfer.nodes.native.engine.speculative.budget import Budget, StepCost


def learnt(intercept: float, slope: float) -> StepCost:
    cost = StepCost()
    for i in range(200):
        rows = 1 + i % 9
        cost.observe(rows, intercept + slope * rows)
    return cost


def test_the_cost_of_a_row_is_measured():
    intercept, slope = learnt(3.0, 0.5).line()
    assert intercept == pytest.approx(3.0, rel=0.05) and slope == pytest.approx(0.5, rel=0.05)


def test_before_other_steps_are_seen_a_row_costs_a_share_of_the_step():
    cost = StepCost()
    assert cost.line() == (0, 0)
    for _ in range(20):
        cost.observe(1, 4.0)
    intercept, slope = cost.line()
    assert intercept + slope == pytest.approx(4.0) and slope == pytest.approx(0.6)


def test_times_that_fall_with_rows_give_no_negative_cost():
    cost = StepCost()
    for i in range(50):
        cost.observe(1 + i % 2, 5.0 - i % 2)
    assert cost.line()[1] >= 0


@pytest.mark.parametrize(
    ("right", "slope", "expected"),
    [
        (1.0, 0.1, 8),  # always right: as many as allowed
        (0.02, 0.1, 0),  # hardly ever: none
        (0.5, 1.0, 0),  # a row is half of a step
        (0.8, 0.0, 8),  # rows cost nothing
    ],
)
def test_guesses_are_made_where_they_pay(right, slope, expected):
    budget = Budget(8)
    budget.cost = learnt(1.0, slope)
    for i in range(400):
        budget.learn("a", 1, int(i * right) - int((i - 1) * right))
    assert budget.share(["a"], 100) == [expected]


def test_better_guessers_get_more_and_room_is_kept():
    budget = Budget(8)
    budget.cost = learnt(1.0, 0.05)
    for _ in range(50):
        budget.learn("good", 4, 4)
        budget.learn("bad", 4, 1)
    good, bad = budget.share(["good", "bad"], 100)
    assert good == 8 > bad
    assert sum(budget.share(["good", "bad"], 5)) == 5
    assert budget.share(["good", "bad"], 0) == [0, 0]
    assert budget.share([], 10) == []


def test_a_big_batch_is_worth_fewer_guesses():
    """A row is a larger part of what a token costs there."""
    budget = Budget(8)
    budget.cost = learnt(10.0, 1.0)
    for _ in range(50):
        for i in range(32):
            budget.learn(str(i), 2, 1)
    alone = budget.share(["0"], 1000)[0]
    among = budget.share([str(i) for i in range(32)], 1000)
    assert alone > max(among)


def test_one_that_is_given_up_is_tried_again_now_and_then():
    budget = Budget(8)
    budget.cost = learnt(1.0, 0.5)
    for _ in range(50):
        budget.learn("a", 4, 0)
    made = [budget.share(["a"], 10)[0] for _ in range(330)]
    assert sum(made) == 10 and max(made) == 1


def test_nothing_is_kept_of_what_is_over():
    budget = Budget(8)
    budget.learn("a", 2, 1)
    budget.share(["b"], 4)
    budget.forget("a")
    budget.forget("b")
    budget.forget("never seen")
    assert not budget._rates
