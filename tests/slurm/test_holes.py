"""Idle nodes, and until when they are idle."""

import math

from slurminfer.slurm.holes import IdleNode, Want, parse

NODES = """\
n1|idle|cpu*|0/64/0/64
n1|idle|low|0/64/0/64
n2|planned|cpu*|0/64/0/64
n3|mixed-|cpu*|60/4/0/64
n4|idle*|cpu*|0/64/0/64
n5|reserved|cpu*|0/64/0/64
n6|idle|low|0/32/0/32
n7|idle~|low|0/32/0/32
"""
PENDING = """\
2000|n[1-3]
1500|n2
N/A|n1
N/A|(null)
2500|n1
"""


def until(found, partitions=None, nodes=1, **more):
    return found.until(Want(partitions=partitions, nodes=nodes, **more))


def test_nodes_that_are_idle_are_free_until_the_first_job_that_waits_for_them_is_to_start():
    found = parse(NODES, PENDING)
    assert found.default == "cpu"
    assert found.idle["cpu"] == {"n1": IdleNode(64), "n2": IdleNode(64), "n3": IdleNode(4, is_whole=False)}
    assert [until(found, nodes=number, is_whole=True) for number in (1, 2, 3)] == [2000.0, 1500.0, None]
    assert (until(found, "low"), until(found, "low", 2)) == (math.inf, 2000.0)


def test_of_a_node_in_use_the_idle_cpus_count_where_they_are_enough():
    found = parse(NODES, PENDING)
    assert [until(found, "cpu", 2, cpus=cpus) for cpus in (4, 5, 65)] == [2000.0, 1500.0, None]


def test_of_several_partitions_the_longest_hole_counts():
    found = parse(NODES, PENDING)
    assert until(found, "cpu,low", 2) == 2000.0
    assert until(found, "gpu,cpu", 3) == 1500.0
    assert until(found, "gpu") is None


def test_as_many_jobs_have_room_as_the_idle_nodes_and_cpus_hold_for_so_long():
    found = parse(NODES, PENDING)
    for want, at, room in (
        (Want(cpus=2), 1500.0, 32 + 32 + 2),
        (Want(cpus=2), 1501.0, 32 + 2),
        (Want(cpus=64), 1500.0, 2),
        (Want(is_whole=True), 1500.0, 2),
        (Want(nodes=2), 1500.0, 1),
        (Want(), 2001.0, 0),
    ):
        assert found.room(want, at) == room


def test_a_job_whose_nodes_are_not_said_may_take_any():
    found = parse(NODES, f"{PENDING}1700|(null)\n")
    assert [until(found, nodes=number) for number in (1, 2, 3)] == [1700.0, 1700.0, 1500.0]


def test_where_slurm_shows_nothing_there_are_no_holes():
    assert until(parse("", "")) is None and parse("", "").room(Want(), 0.0) == 0
    assert until(parse("n1|idle\n", "x")) is None
