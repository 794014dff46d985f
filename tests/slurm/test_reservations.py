"""Reservations as Slurm 22.05 prints them, and how long a job can be that must end before."""

import pytest

from slurminfer.slurm.reservations import (
    Reservation,
    blocking,
    longest_limit_s,
    parse_reservations,
)

END = "Licenses=(null) State=INACTIVE BurstBuffer=(null) Watts=n/a MaxStartDelay=(null)"
TEXT = f"""\
ReservationName=maint1 StartTime=1796003936 EndTime=1796011136 Duration=02:00:00 Nodes=n[1-4] NodeCnt=4 CoreCnt=256 \
Features=(null) PartitionName=(null) Flags=MAINT,IGNORE_JOBS,SPEC_NODES,ALL_NODES TRES=cpu=256 Users=root \
Groups=(null) Accounts=(null) {END}
ReservationName=part StartTime=1795993136 EndTime=1795996736 Duration=01:00:00 Nodes=n[3-4] NodeCnt=2 CoreCnt=128 \
Features=(null) PartitionName=(null) Flags=IGNORE_JOBS,SPEC_NODES TRES=cpu=128 Users=root Groups=(null) \
Accounts=(null) {END}
ReservationName=weekly StartTime=1796007536 EndTime=1827543536 Duration=365-00:00:00 Nodes=n2 NodeCnt=1 CoreCnt=64 \
Features=(null) PartitionName=low Flags=WEEKLY,SPEC_NODES TRES=cpu=64 Users=(null) Groups=(null) Accounts=tests {END}
"""
NOW = 1795989536.0  # an hour before "part", four hours before "maint1"
ALL = ("n1", "n2", "n3", "n4")


def test_reservations_are_read_in_the_order_of_their_begin():
    first, second, third = parse_reservations(TEXT)
    assert first == Reservation(
        name="part", starts_at=1795993136.0, ends_at=1795996736.0, nodes=frozenset({"n3", "n4"}),
        flags=frozenset({"IGNORE_JOBS", "SPEC_NODES"}), users=("root",),
    )  # fmt: skip
    assert (second.name, "MAINT" in second.flags, len(second.nodes)) == ("maint1", True, 4)
    assert (third.partition, third.accounts, third.users) == ("low", ("tests",), ())


def test_no_reservations():
    assert parse_reservations("No reservations in the system\n") == ()


@pytest.mark.parametrize(
    ("nodes", "count", "hours"), [(ALL, 1, 4), (ALL, 2, 4), (ALL, 3, 1), (("n3",), 1, 1), (("n1",), 1, 4)]
)
def test_a_job_must_end_before_too_few_nodes_are_left(nodes, count, hours):
    assert longest_limit_s(parse_reservations(TEXT), nodes, NOW, count) == hours * 3600


def test_limits_are_whole_minutes_rounded_down():
    assert longest_limit_s(parse_reservations(TEXT), ("n3",), NOW + 1) == 59 * 60


def test_without_a_reservation_there_is_no_bound():
    assert longest_limit_s((), ALL, NOW) is None
    assert longest_limit_s(parse_reservations(TEXT), ("m1",), NOW) is None


def test_within_a_reservation_nothing_starts_and_after_it_it_is_forgotten():
    (one,) = (found for found in parse_reservations(TEXT) if found.name == "part")
    assert longest_limit_s([one], ("n3",), one.starts_at) == 0
    assert longest_limit_s([one], ("n3",), one.ends_at) is None


def test_fewer_nodes_than_the_job_needs_are_no_time_at_all():
    assert longest_limit_s((), ("n1",), NOW, count=2) == 0


@pytest.mark.parametrize(
    ("users", "flags", "is_blocked"),
    [
        (("alice",), frozenset(), True),  # hers, but a job that does not name it cannot use it
        (("alice",), frozenset({"MAGNETIC"}), False),
        (("bob",), frozenset({"MAGNETIC"}), True),
        (("-bob",), frozenset({"MAGNETIC"}), False),
        (("-alice",), frozenset({"MAGNETIC"}), True),
    ],
)
def test_which_reservations_keep_a_job_out(users, flags, is_blocked):
    one = Reservation(name="r", starts_at=0, ends_at=1, nodes=frozenset({"n1"}), users=users, flags=flags)
    assert blocking([one], "alice") == ((one,) if is_blocked else ())
    assert blocking([one], "alice", named="r") == ()


def test_an_account_may_be_what_a_reservation_is_for():
    one = Reservation(
        name="r", starts_at=0, ends_at=1, nodes=frozenset({"n1"}), accounts=("bio",), flags=frozenset({"MAGNETIC"})
    )
    assert blocking([one], "alice", ["bio"]) == ()
    assert blocking([one], "alice", ["physics"]) == (one,)
