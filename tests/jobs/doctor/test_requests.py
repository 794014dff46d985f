"""Which job looks at a partition."""

from pathlib import Path

import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.core.site.doctor import GpuKind
from slurminfer.jobs.doctor.requests import Ask, asks, choose, request
from slurminfer.slurm.forecast import Forecast
from slurminfer.slurm.limits import Partition
from slurminfer.slurm.site import NodeKinds

FOLDER = Path("/f")
GPU = NodeKinds(nodes=4, cpus=64, memory=1 << 30, gpus=(GpuKind(type="h100", per_node=8, nodes=4),))
CPU = NodeKinds(nodes=1, cpus=1, memory=1 << 30)


def candidates(kinds, partition=Partition(name="p")):  # noqa: B008, a frozen value
    return [(ask, request(partition, kinds, ask, FOLDER, None)) for ask in asks(partition, kinds)]


def test_what_shows_most_is_asked_for_first():
    found = list(asks(Partition(name="p"), GPU))
    options = ["--gpus-per-node=1", "--gres=gpu:1", "--gres=gpu:h100:1"]
    assert found[:3] == [Ask(2, option) for option in options] and found[3:6] == [Ask(1, option) for option in options]
    assert found[6:] == [Ask(2), Ask(1), Ask(1, mem="1G")]
    assert list(asks(Partition(name="p"), CPU)) == [Ask(1), Ask(1, mem="1G")]
    assert max(ask.nodes for ask in asks(Partition(name="p", max_nodes=1), GPU)) == 1


def test_a_job_is_small_and_within_the_limits_of_its_partition():
    job = request(Partition(name="p", max_time_s=120), CPU, Ask(1), FOLDER, "bio")
    assert (job.cpus_per_task, job.time_s, job.partition, job.account, job.nodes) == (1, 120, "p", "bio", 1)
    assert job.slurm == {"no-requeue": True} and job.mem is None
    with_gpu, with_gres = (request(Partition(name="p"), GPU, Ask(2, option), FOLDER, None) for option in
                           ("--gpus-per-node=1", "--gres=gpu:h100:1"))  # fmt: skip
    assert (with_gpu.gpus_per_node, with_gpu.cpus_per_task, with_gpu.time_s) == (1, 2, 300)
    assert (with_gres.gpus_per_node, with_gres.slurm["gres"]) == (0, "gpu:h100:1")


def test_the_first_that_starts_in_time_is_taken():
    starts = {(2, 1): 500.0, (2, 0): 90.0}
    plan = choose(candidates(GPU), lambda job: Forecast(starts_at=starts[job.nodes, job.gpus_per_node]), latest=100.0)
    assert plan.ask == Ask(2, "--gres=gpu:1")
    later = choose(candidates(GPU), lambda job: Forecast(starts_at=99.0 if job.nodes == 1 else 101.0), latest=100.0)
    assert later.ask == Ask(1, "--gpus-per-node=1")


def test_where_none_starts_in_time_it_is_the_earliest():
    plan = choose(candidates(CPU), lambda job: Forecast(starts_at=300.0 if job.mem else 200.0), latest=100.0)
    assert plan.ask == Ask(1) and plan.request is not None


def test_where_all_are_refused_slurm_says_why():
    plan = choose(candidates(CPU), lambda job: Forecast(reason="Invalid account"), latest=100.0)
    assert (plan.request, plan.reason) == (None, "Invalid account")


def test_where_there_is_no_forecast_the_least_is_tried():
    def silent(job):
        raise SlurmError("sbatch: no answer within 60 s")

    plan = choose(candidates(CPU), silent, latest=100.0)
    assert plan.request is not None and plan.ask == Ask(1, mem="1G")


@pytest.mark.parametrize("kinds", [GPU, CPU])
def test_every_request_can_be_rendered(kinds):
    for _, job in candidates(kinds):
        assert job.entry.argv()
