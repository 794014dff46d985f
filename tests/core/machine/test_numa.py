"""NUMA domains of several machines, and what a job's cpuset leaves of them."""

import pytest

from slurminfer.core.machine.cpus import parse_cpu_list
from slurminfer.core.machine.numa import divide_cpus, memory_nodes, numa_domains, own_memory

from .machines import granite_rapids, memoryless, nps4, snc4, two_sockets, write_machine, write_status

EVERYTHING = range(1024)


@pytest.fixture
def all_memory(tmp_path):
    return write_status(tmp_path / "status", "0-15")


@pytest.mark.parametrize(
    ("machine", "cpus", "cores"),
    [
        (two_sockets, ["0-31,64-95", "32-63,96-127"], [32, 32]),
        (snc4, [f"{8 * n}-{8 * n + 7},{64 + 8 * n}-{64 + 8 * n + 7}" for n in range(8)], [8] * 8),
        (nps4, ["0-23", "24-47", "48-71", "72-95"], [24] * 4),
        (granite_rapids, ["0-42", "43-85", "86-127"], [43, 43, 42]),
    ],
)
def test_domains_are_the_nodes_with_cpus(machine, cpus, cores, tmp_path, all_memory):
    domains = numa_domains(EVERYTHING, machine(tmp_path / "system"), all_memory)
    assert [domain.cpus for domain in domains] == [parse_cpu_list(text) for text in cpus]
    assert [len(domain.cores) for domain in domains] == cores
    assert [domain.memory for domain in domains] == [{domain.number} for domain in domains]


def test_a_cpuset_that_straddles_cuts_domains_and_cores(tmp_path, all_memory):
    system = two_sockets(tmp_path / "system")
    first, second = numa_domains([30, 31, 95, 32], system, all_memory)
    assert first.cores == (frozenset({30}), frozenset({31, 95}))
    assert second.cores == (frozenset({32}),)


def test_a_domain_whose_memory_is_not_the_jobs_takes_the_nearest(tmp_path):
    system = two_sockets(tmp_path / "system")
    (domain,) = numa_domains(range(32, 64), system, write_status(tmp_path / "status", "0"))
    assert domain.number == 1 and domain.memory == {0}


def test_a_domain_without_memory_takes_its_neighbours(tmp_path, all_memory):
    domains = numa_domains(EVERYTHING, memoryless(tmp_path / "system"), all_memory)
    assert [domain.memory for domain in domains] == [{0}, {0}, {2}, {2}]


def test_without_sysfs_all_is_one_domain_of_unknown_memory(tmp_path):
    (domain,) = numa_domains([3, 7], tmp_path, tmp_path / "status")
    assert (domain.number, domain.cores, domain.memory) == (0, (frozenset({3}), frozenset({7})), frozenset())


def test_domains_are_in_the_order_of_their_numbers(tmp_path, all_memory):
    system = write_machine(tmp_path / "system", {n: str(n) for n in (0, 2, 10)})
    assert [domain.number for domain in numa_domains(EVERYTHING, system, all_memory)] == [0, 2, 10]


def test_memory_is_what_the_cpuset_allows(tmp_path):
    system = snc4(tmp_path / "system")
    assert memory_nodes(system, write_status(tmp_path / "status", "0-1,8")) == {0, 1, 8}
    assert memory_nodes(system, tmp_path / "missing") == set(range(16))


def test_own_memory(tmp_path, all_memory):
    system = two_sockets(tmp_path / "system")
    assert own_memory(range(32, 64), system, all_memory) == frozenset({1})
    assert own_memory([0, 32], system, all_memory) == frozenset()  # of several domains
    assert own_memory([0], system, write_status(tmp_path / "status", "0")) is None  # nothing to choose
    assert own_memory([0], tmp_path / "nothing", all_memory) is None


def shares(count, cpus, system):
    return [len(share) for share in divide_cpus(count, cpus, system) or []]


def crossing(count, cpus, system, status):
    """Shares that have CPUs of several domains."""
    found = divide_cpus(count, cpus, system) or []
    return sum(len(numa_domains(share, system, status)) > 1 for share in found)


@pytest.mark.parametrize(("count", "expected"), [(3, [43, 43, 42]), (6, [21, 22, 21, 22, 21, 21])])
def test_ranks_lie_within_domains_of_unequal_size(count, expected, tmp_path, all_memory):
    system = granite_rapids(tmp_path / "system")
    assert shares(count, range(128), system) == expected
    assert crossing(count, range(128), system, all_memory) == 0


def test_a_rank_gets_whole_domains_where_there_are_more(tmp_path, all_memory):
    system = snc4(tmp_path / "system")
    first, second = divide_cpus(2, range(128), system) or []
    assert [d.number for d in numa_domains(first, system, all_memory)] == [0, 1, 2, 3]
    assert [d.number for d in numa_domains(second, system, all_memory)] == [4, 5, 6, 7]


def test_ranks_are_of_one_size_where_domains_cannot_be_shared(tmp_path):
    system = nps4(tmp_path / "system")
    assert shares(3, range(96), system) == [32, 32, 32]
    assert shares(2, range(20, 60), system) == [20, 20]  # 4, 24 and 12 CPUs of three domains
    assert shares(2, range(40, 50), system) == [5, 5]  # 8 and 2: one rank would wait for the other


def test_no_core_is_split(tmp_path):
    system = two_sockets(tmp_path / "system")
    for share in divide_cpus(8, range(128), system) or []:
        assert {cpu + 64 for cpu in share if cpu < 64} == {cpu for cpu in share if cpu >= 64}
