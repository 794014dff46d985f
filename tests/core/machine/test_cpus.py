"""CPUs, cores and NUMA nodes, from files as the kernel writes them."""

import os

import pytest

from slurminfer.core.machine.cpus import Cpus, allowed_cpus, format_cpu_list, parse_cpu_list
from slurminfer.core.machine.numa import divide_cpus, numa_home


@pytest.fixture
def system(tmp_path):
    """Two sockets of two cores with two hardware threads each: CPU n and n + 4 are of one core."""

    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")

    for cpu in range(8):
        write(f"cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}")
    write("node/node0/cpulist", "0-1,4-5")
    write("node/node1/cpulist", "2-3,6-7")
    return tmp_path


@pytest.mark.parametrize(
    ("allowed", "found"),
    [
        (range(8), Cpus(8, 4, 2)),
        ([0, 4], Cpus(2, 1, 1)),
        ([0, 1], Cpus(2, 2, 1)),
        ([1, 2, 5], Cpus(3, 2, 2)),
    ],
)
def test_hardware_threads_of_a_core_count_once(system, allowed, found):
    assert allowed_cpus(allowed, system) == found


def test_where_the_kernel_does_not_tell_each_cpu_is_a_core(tmp_path):
    assert allowed_cpus([3, 7], tmp_path) == Cpus(2, 2, 1)


FIRST, SECOND = frozenset({0, 1, 4, 5}), frozenset({2, 3, 6, 7})


@pytest.mark.parametrize(
    ("wanted", "homes"),
    [
        ([2, 2], [FIRST, SECOND]),  # cores
        ([4, 4], [FIRST, SECOND]),  # hardware threads
        ([3, 1, 1, 1], [FIRST, SECOND, SECOND, SECOND]),
        ([1, 1, 1, 1], [FIRST, SECOND, FIRST, SECOND]),
        ([4], [None]),
        ([8], [None]),
        ([1, 1], [None, None]),  # one node has cores for both
        ([8, 1], [None, None]),
        ([4, 4, 1], [None, None, None]),
    ],
)
def test_processes_that_fill_several_numa_nodes_each_get_one(system, wanted, homes):
    assert [numa_home(index, wanted, range(8), system) for index in range(len(wanted))] == homes


def test_a_numa_node_has_only_the_cpus_that_are_allowed(system):
    assert numa_home(0, [2, 2], [0, 4, 2, 3], system) == FIRST & {0, 4}
    assert numa_home(1, [2, 2], [0, 4, 2, 3], system) == SECOND & {2, 3}
    assert numa_home(0, [2, 2], [0, 1, 4, 5], system) is None


def test_where_the_kernel_tells_no_numa_nodes_there_is_one(tmp_path):
    assert numa_home(0, [1, 1], [3, 7], tmp_path) is None


def test_by_default_they_are_those_of_this_process():
    assert allowed_cpus().cpus == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("text", "ids"), [("0-2,7\n", {0, 1, 2, 7}), ("5", {5}), ("", set())])
def test_lists_of_cpus_are_read_and_written(text, ids):
    assert parse_cpu_list(text) == ids
    assert format_cpu_list(ids) == text.strip()


def test_cpus_are_divided_by_whole_cores_and_numa_nodes(system):
    def shares(count: int) -> list[list[int]]:
        return [sorted(share) for share in divide_cpus(count, range(8), system) or []]

    assert shares(2) == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert shares(4) == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert shares(3) == [[0, 4], [1, 5], [2, 3, 6, 7]]
    assert divide_cpus(1, range(8), system) is None
    assert divide_cpus(5, range(8), system) is None  # fewer cores
