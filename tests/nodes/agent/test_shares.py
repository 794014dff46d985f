"""What each of several workers of one job gets."""

import pytest

from slurminfer.core.errors import EngineError
from slurminfer.core.machine.cpus import format_cpu_list
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.nodes.agent.placement.shares import shares

from ...core.machine import topologies
from ...core.machine.machines import nps4, snc4, two_sockets, write_machine


def cpus_of(pool, allowed, system):
    return [format_cpu_list(share.cpus) for share in shares(pool, {}, allowed, system)]


@pytest.mark.parametrize(
    ("machine", "allowed", "expected"),
    [
        (two_sockets, range(128), ["0-31,64-95", "32-63,96-127"]),
        (two_sockets, range(32, 64), ["32-63"]),  # the job has half of the node
        (two_sockets, [*range(24, 32), *range(32, 40)], ["24-31", "32-39"]),
        (nps4, range(96), ["0-23", "24-47", "48-71", "72-95"]),
        (snc4, range(16), ["0-7", "8-15"]),  # of eight domains and those of HBM
    ],
)
def test_one_worker_is_on_each_numa_domain_of_the_job(machine, allowed, expected, tmp_path):
    pool = PoolSpec(workers_per_job="numa", cpus_per_task=len(allowed))
    assert cpus_of(pool, allowed, machine(tmp_path)) == expected


def test_each_sees_a_pool_with_its_part(tmp_path):
    pool = PoolSpec(workers_per_job="numa", cpus_per_task=128, tensor_parallel=2)
    for share in shares(pool, {}, range(128), two_sockets(tmp_path)):
        assert (share.pool.workers_per_job, share.pool.cpus_per_task, share.pool.tensor_parallel) == (1, 64, 2)
        assert share.gpus is None


def test_a_number_of_workers_divides_the_cores(tmp_path):
    pool = PoolSpec(workers_per_job=4, cpus_per_task=128)
    assert cpus_of(pool, range(128), two_sockets(tmp_path)) == [
        "0-15,64-79",
        "16-31,80-95",
        "32-47,96-111",
        "48-63,112-127",
    ]


def test_too_few_cores_are_said(tmp_path):
    system = write_machine(tmp_path, {0: "0-1,2-3"}, siblings=[2])
    with pytest.raises(EngineError, match=r"workers_per_job = 4: the job has 2 cores"):
        shares(PoolSpec(workers_per_job=4, cpus_per_task=4), {}, range(4), system)
    with pytest.raises(EngineError, match=r"workers_per_job = 'numa': one of 1 workers has 4 CPUs.*3 ranks"):
        shares(PoolSpec(workers_per_job="numa", cpus_per_task=4, tensor_parallel=3), {}, range(4), system)


def smi(table):
    return lambda argv: table if "topo" in argv else ""


def test_workers_on_gpus_get_those_that_nvlink_connects(tmp_path):
    pool = PoolSpec(workers_per_job=2, gpus_per_node=4, tensor_parallel=2, cpus_per_task=16)
    found = shares(
        pool, {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, range(64), tmp_path, ask=smi(topologies.A100_BRIDGES_ACROSS)
    )
    assert [share.gpus for share in found] == ["0,3", "1,2"]
    assert [(share.pool.gpus_per_node, share.pool.cpus_per_task) for share in found] == [(2, 8), (2, 8)]


def test_gpus_are_divided_in_order_where_nothing_is_told(tmp_path):
    pool = PoolSpec(workers_per_job=2, gpus_per_node=2, cpus_per_task=1)
    found = shares(pool, {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, [0], tmp_path, ask=lambda _argv: "")
    assert [share.gpus for share in found] == ["GPU-a", "GPU-b"]
    with pytest.raises(EngineError, match=r"gpus_per_node = 2: the job has 1 GPUs"):
        shares(pool, {"CUDA_VISIBLE_DEVICES": "GPU-a"}, [0], tmp_path, ask=lambda _argv: "")
