"""Until when the nodes of a pool are free of reservations."""

from collections.abc import Mapping

import msgspec
import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.fleet.calendar import Calendar
from slurminfer.jobs.fleet.rules.observed import Reserved
from slurminfer.slurm.limits import Partition
from slurminfer.slurm.reservations import Reservation

NOW = 1_795_000_000.0
PARTITIONS = {
    "cpu": Partition(name="cpu", is_default=True, nodes="n[1-2]"),
    "gpu": Partition(name="gpu", nodes="g[1-2]"),
}
SPEC = """
name = "d"
[model]
path = "/m"
[[pool]]
name = "cpu"
{cpu}
[[pool]]
name = "gpu"
partition = "gpu"
"""


def reserved(*nodes: str, name: str = "maintenance") -> Reservation:
    return Reservation(name=name, starts_at=NOW + 7200, ends_at=NOW + 90000, nodes=frozenset(nodes), users=("root",))


def begins(found: Mapping[str, Reserved]) -> dict[str, float]:
    return {pool: reserved.starts_at for pool, reserved in found.items()}


def test_the_nodes_are_free_again_when_enough_reservations_are_over():
    first = reserved("n1", "n2")
    second = msgspec.structs.replace(reserved("n2"), starts_at=NOW + 80000, ends_at=NOW + 99000)
    calendar = Calendar(lambda: (first, second), lambda: PARTITIONS)

    def free_again(cpu: str) -> float | None:
        return calendar.reserved(parse_spec(SPEC.format(cpu=cpu)), NOW)["cpu"].ends_at

    assert free_again("") == NOW + 90000
    assert free_again("nodes = 2") == NOW + 99000


@pytest.mark.parametrize(
    ("cpu", "reservation", "expected"),
    [
        ("", reserved("n1", "n2"), {"cpu": NOW + 7200}),
        ("", reserved("n1"), {}),  # the other node is free
        ("nodes = 2", reserved("n1"), {"cpu": NOW + 7200}),
        ("", reserved("g1", "g2", "n1", "n2"), {"cpu": NOW + 7200, "gpu": NOW + 7200}),
        ('slurm = { reservation = "ours" }', reserved("n1", "n2", name="ours"), {}),
    ],
)
def test_a_reservation_bounds_the_pools_whose_nodes_it_takes(cpu, reservation, expected):
    calendar = Calendar(lambda: (reservation,), lambda: PARTITIONS)
    assert begins(calendar.reserved(parse_spec(SPEC.format(cpu=cpu)), NOW)) == expected  # time limits are whole minutes


def test_slurm_is_asked_seldom_and_what_it_said_last_counts():
    asked = []

    def ask():
        asked.append(1)
        if len(asked) > 1:
            raise SlurmError("no answer")
        return (reserved("n1", "n2"),)

    calendar, spec = Calendar(ask, lambda: PARTITIONS), parse_spec(SPEC.format(cpu=""))
    for later in (0, 60, 360):
        assert begins(calendar.reserved(spec, NOW + later)) == {"cpu": NOW + 7200}
    assert len(asked) == 2
