"""The longest limits that Slurm allows the pools of a deployment."""

from slurminfer.core.errors import SlurmError
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.fleet.allowed import Allowed
from slurminfer.jobs.fleet.rules.desired import desired_of
from slurminfer.slurm.limits import Partition

PARTITIONS = {"cpu": Partition(name="cpu", is_default=True, max_time_s=43_200)}
SPEC = parse_spec("""
name = "d"
[model]
path = "/m"
[[pool]]
name = "chosen"
time = "1-00:00:00"
time_min = "02:00:00"
slurm = { qos = "short" }
[[pool]]
name = "bounded"
time = "1-00:00:00"
time_min = "02:00:00"
[[pool]]
name = "fixed"
time = "1-00:00:00"
""")


def test_limits_bound_the_pools_that_leave_a_choice():
    longest = Allowed(lambda: PARTITIONS, lambda: {"short": 3600}).longest_s(SPEC, 0.0)
    assert longest == {"chosen": 3600, "bounded": 43_200}
    plans = {plan.name: plan.longest_s for plan in desired_of(SPEC, {}, has_walltime=True, allowed=longest).pools[1:]}
    # Slurm says why it takes no job that is too long.
    assert plans == {"chosen": 7200, "bounded": 43_200, "fixed": 86_400}


def test_slurm_is_asked_seldom_and_what_it_said_last_counts():
    asked = []

    def ask():
        asked.append(1)
        if len(asked) > 1:
            raise SlurmError("no answer")
        return PARTITIONS

    allowed = Allowed(ask, dict)
    for later in (0.0, 600.0, 3600.0, 3700.0):
        assert allowed.longest_s(SPEC, later)["bounded"] == 43_200
    assert len(asked) == 2


def test_where_nothing_is_to_be_chosen_nothing_is_asked():
    def ask():
        raise AssertionError("asked")

    spec = parse_spec('name = "d"\n[model]\npath = "/m"\n[[pool]]\nname = "fixed"')
    assert Allowed(ask, ask).longest_s(spec, 0.0) == {}
