import pytest

from slurminfer.core.errors import EngineError
from slurminfer.core.spec.deployment import DeploymentSpec
from slurminfer.core.spec.model import ModelSpec
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.nodes.agent.placement.gpus import settle


def spec(*pools):
    return DeploymentSpec(name="n", model=ModelSpec(path="m"), pool=tuple(pools))


@pytest.fixture
def devices(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    return tmp_path


def test_every_local_worker_gets_gpus_of_its_own(devices):
    pools = PoolSpec(name="a", workers=2, gpus_per_node=1), PoolSpec(name="b", gpus_per_node=2), PoolSpec(name="c")
    asked = spec(*pools)
    found = {}
    for slot, pool in enumerate(asked.slots()):
        environ: dict[str, str] = {}
        settle(asked, slot, environ, devices)
        found[slot, pool.name] = environ["CUDA_VISIBLE_DEVICES"]
    assert found == {(0, "a"): "0", (1, "a"): "1", (2, "b"): "2,10", (3, "c"): ""}


def test_those_that_a_job_has_are_shared(devices):
    environ = {"CUDA_VISIBLE_DEVICES": "GPU-abc,GPU-def"}
    settle(spec(PoolSpec(workers=2, gpus_per_node=1)), 1, environ, devices)
    assert environ["CUDA_VISIBLE_DEVICES"] == "GPU-def"


def test_too_few_are_refused_with_both_numbers(devices):
    with pytest.raises(EngineError, match=r"gpus_per_node = 2: the local workers want 6 GPUs in all, and 4 are here"):
        settle(spec(PoolSpec(workers=3, gpus_per_node=2)), 2, {}, devices)


def test_more_local_workers_than_the_spec_has_are_refused(devices):
    with pytest.raises(EngineError, match=r"the spec has 2 local workers.*no more can be added"):
        settle(spec(PoolSpec(workers=2, gpus_per_node=1)), 2, {}, devices)


def test_nothing_changes_where_nobody_asks(devices):
    environ: dict[str, str] = {}
    settle(spec(PoolSpec(workers=2)), 1, environ, devices)
    assert environ == {}
