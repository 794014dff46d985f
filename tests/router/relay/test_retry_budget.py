"""How many further attempts there may be."""

from slurminfer.router.relay.losses.retry_budget import RetryBudget


def spent(budget):
    count = 0
    while budget.spend():
        count += 1
    return count


def test_ten_in_ten_seconds_are_always_there():
    now = [0.0]
    budget = RetryBudget(0.0, lambda: now[0])
    assert spent(budget) == 10
    now[0] += 3
    assert spent(budget) == 3
    now[0] += 1000
    assert spent(budget) == 10


def test_requests_earn_their_share_up_to_a_bound():
    budget = RetryBudget(0.25, lambda: 0.0)
    for _ in range(100):
        budget.request()
    assert spent(budget) == 35
    for _ in range(100_000):
        budget.request()
    assert spent(budget) == 1000


def test_what_a_lost_worker_had_in_flight_may_all_go_elsewhere():
    budget = RetryBudget(0.0, lambda: 0.0)
    budget.grant(50)
    assert spent(budget) == 60
