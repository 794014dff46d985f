"""Where local workers run, and what is said to those who ask for too much in one process."""

import os
from pathlib import Path

import pytest

from slurminfer.core.machine.cpus import Cpus, allowed_cpus
from slurminfer.core.spec.deployment import DeploymentSpec
from slurminfer.core.spec.model import ModelSpec
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.nodes.agent.placement import threads

from ...core.machine.machines import two_sockets


@pytest.fixture
def own():
    """The CPUs of this process, which has them back afterwards."""
    before = os.sched_getaffinity(0)
    yield sorted(before)
    os.sched_setaffinity(0, before)


def machine(path: Path, *nodes: list[int]) -> Path:
    for index, cpus in enumerate(nodes):
        (path / f"node/node{index}").mkdir(parents=True)
        (path / f"node/node{index}/cpulist").write_text(",".join(map(str, cpus)) + "\n")
    return path


def spec(**pool) -> DeploymentSpec:
    return DeploymentSpec(name="x", model=ModelSpec(path="demo"), pool=(PoolSpec(name="cpu", **pool),))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_workers_that_need_two_numa_nodes_settle_on_one_each(own, tmp_path):
    half = len(own) // 2
    system, wanted = machine(tmp_path, own[:half], own[half:]), spec(workers=2, cpus_per_task=half)
    threads.settle(wanted, 1, system)
    assert os.sched_getaffinity(0) == set(own[half:])
    assert allowed_cpus(system=system).numa_nodes == 1
    threads.settle(wanted, 1, system)  # once more changes nothing
    assert os.sched_getaffinity(0) == set(own[half:])


@pytest.mark.parametrize("pool", [{"workers": 1}, {"engine": "vllm"}, {"gpus_per_node": 1}])
def test_others_run_everywhere(own, tmp_path, pool):
    half = max(len(own) // 2, 1)
    wanted = spec(**{"workers": 2, "cpus_per_task": half} | pool)
    threads.settle(wanted, 0, machine(tmp_path, own[:half], own[half:]))
    assert os.sched_getaffinity(0) == set(own)


def test_on_this_machine_nothing_changes_without_a_second_node(own, tmp_path):
    threads.settle(spec(workers=2, cpus_per_task=len(own)), 0, machine(tmp_path, own))
    assert os.sched_getaffinity(0) == set(own)


def test_an_engine_takes_the_cpus_asked_for_but_one_thread_a_core():
    found = Cpus(cpus=16, cores=8, numa_nodes=1)
    assert threads.engine_threads(PoolSpec(cpus_per_task=4), found) == 4
    assert threads.engine_threads(PoolSpec(cpus_per_task=16), found) == 8


def test_an_engine_over_two_numa_nodes_hears_of_a_better_spec():
    pool = PoolSpec(name="cpu", workers=3, cpus_per_task=128)
    said = threads.advice(pool, 64, Cpus(cpus=128, cores=64, numa_nodes=2))
    assert said is not None and "workers_per_job = \"numa\" (pool 'cpu')" in said


@pytest.mark.parametrize(
    ("pool", "count", "found"),
    [
        (PoolSpec(cpus_per_task=32), 32, Cpus(cpus=32, cores=32, numa_nodes=1)),
        (PoolSpec(cpus_per_task=32), 32, Cpus(cpus=64, cores=64, numa_nodes=2)),  # it may run anywhere, and fits in one
        (PoolSpec(cpus_per_task=64, engine="vllm"), 64, Cpus(cpus=64, cores=64, numa_nodes=2)),
        (PoolSpec(cpus_per_task=64, tensor_parallel=2), 64, Cpus(cpus=64, cores=64, numa_nodes=2)),
        (PoolSpec(cpus_per_task=64, gpus_per_node=1), 64, Cpus(cpus=64, cores=64, numa_nodes=2)),
    ],
)
def test_where_nothing_is_to_gain_nothing_is_said(pool, count, found):
    assert threads.advice(pool, count, found) is None


def test_each_rank_gets_one_cpu_of_each_core_of_its_domain(tmp_path):
    system = two_sockets(tmp_path)
    pool = PoolSpec(tensor_parallel=2, cpus_per_task=128)
    assert threads.rank_cpus(pool, 64, range(128), system) == (tuple(range(32)), tuple(range(32, 64)))
    assert threads.rank_cpus(pool, 8, range(128), system) == (tuple(range(4)), tuple(range(32, 36)))
    assert threads.rank_cpus(PoolSpec(cpus_per_task=4), 4, range(64, 128), system) == ((64, 65, 66, 67),)


def test_cpus_are_the_engines_to_choose_on_gpus_and_for_more_ranks_than_cores(tmp_path):
    system = two_sockets(tmp_path)
    assert threads.rank_cpus(PoolSpec(gpus_per_node=2, tensor_parallel=2), 8, range(128), system) == ()
    assert threads.rank_cpus(PoolSpec(tensor_parallel=4, cpus_per_task=4), 2, [0, 64, 1, 65], system) == ()
