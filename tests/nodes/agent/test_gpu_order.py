"""What the ranks of a node get, by what nvidia-smi says and the job allows."""

import pytest

from slurminfer.core.machine.nvidia import ask_smi
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.nodes.agent.placement.gpu_order import GpuOrder, gpu_order

from ...core.machine import topologies

UUIDS = ["GPU-aaaa-1", "GPU-bbbb-2", "GPU-cccc-3", "GPU-dddd-4"]
ALL = frozenset(range(192))


def smi(table):
    return lambda argv: table if "topo" in argv else "\n".join(UUIDS) + "\n"


def pool(gpus, tensor_parallel, **changes):
    return PoolSpec(gpus_per_node=gpus, tensor_parallel=tensor_parallel, **changes)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0,1,2,3", "0,3,1,2"),
        (None, "0,3,1,2"),
        (",".join(UUIDS), "GPU-aaaa-1,GPU-dddd-4,GPU-bbbb-2,GPU-cccc-3"),
        ("GPU-aaaa,GPU-bbbb,GPU-cccc,GPU-dddd", "GPU-aaaa,GPU-dddd,GPU-bbbb,GPU-cccc"),
        ("0,3,2,1", None),  # connected already
    ],
)
def test_gpus_are_named_as_before_in_the_better_order(visible, expected):
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = gpu_order(pool(4, 2, pipeline_parallel=2), environ, smi(topologies.A100_BRIDGES_ACROSS), ALL)
    assert (found.visible, found.remark) == (expected, "")


@pytest.mark.parametrize("visible", ["MIG-aaaa,MIG-bbbb", "4,5", "GPU-x,GPU-y", "0", "0,1,2"])
def test_gpus_that_cannot_be_found_again_stay_as_they_are(visible):
    environ = {"CUDA_VISIBLE_DEVICES": visible}
    assert gpu_order(pool(2, 2), environ, smi(topologies.A100_BRIDGES), ALL) == GpuOrder()


def test_without_nvidia_smi_all_is_as_it_is(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert gpu_order(pool(2, 2), {"CUDA_VISIBLE_DEVICES": "0,1"}, ask_smi, ALL) == GpuOrder()


def test_each_rank_keeps_to_the_cpus_beside_its_gpu():
    found = gpu_order(pool(4, 2, pipeline_parallel=2), {}, smi(topologies.A100_BRIDGES_ACROSS), ALL)
    assert [(cpus[0], cpus[-1]) for cpus in found.rank_cpus] == [(0, 31), (32, 63), (0, 31), (32, 63)]


@pytest.mark.parametrize("allowed", [range(32), range(28, 64), range(192, 200)])
def test_a_job_with_few_cpus_beside_a_gpu_runs_everywhere(allowed):
    found = gpu_order(pool(4, 4), {}, smi(topologies.A100_BRIDGES), frozenset(allowed))
    assert found.rank_cpus == ()


def test_a_group_without_nvlink_is_told():
    said = gpu_order(pool(4, 4), {}, smi(topologies.A100_BRIDGES), ALL).remark
    assert said == ("tensor_parallel = 4: no NVLink connects GPUs 0 and 2 of one group (SYS), which slows every layer")


def test_a_group_of_several_nodes_takes_whole_nodes_or_stays():
    assert gpu_order(pool(4, 8, nodes=2), {}, smi(topologies.A100_BRIDGES_ACROSS), ALL).visible is None
    assert gpu_order(pool(4, 3, nodes=3), {}, smi(topologies.A100_BRIDGES_ACROSS), ALL).visible is None
