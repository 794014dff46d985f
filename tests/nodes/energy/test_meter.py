"""What a node reads of its energy, and for which part of it."""

import pytest

from slurminfer.core.records import EnergyRecord
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.nodes.energy.meter import EnergyMeter, cpu_share

POOL = PoolSpec(name="p", cpus_per_task=4)


@pytest.mark.parametrize(
    ("environ", "allowed", "share"),
    [
        ({}, 16, 4 / 16),  # not confined, and no Slurm
        ({"SLURM_CPUS_ON_NODE": "8"}, 16, 8 / 16),
        ({"SLURM_CPUS_ON_NODE": "1"}, 2, 2 / 16),  # Slurm counts cores, the kernel threads
        ({"SLURM_CPUS_ON_NODE": "64"}, 16, 1.0),
        ({"SLURMINFER_LOCAL": "1"}, 8, 4 / 16),  # kept to a NUMA domain, which others may share
    ],
)
def test_the_job_s_share_is_that_of_its_cpus(environ, allowed, share):
    assert cpu_share(POOL, environ, cpus=16, allowed=allowed) == share


def test_it_reads_when_it_begins_and_when_it_ends(tmp_path):
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, text in {"name": "package-0", "max_energy_range_uj": "900000000", "energy_uj": "5000000"}.items():
        (zone / name).write_text(text)
    meter = EnergyMeter(POOL, {}, tmp_path, period_s=900.0)
    meter.close()
    assert meter.latest is not None and meter.latest.gpu_j is None
    assert meter.latest.cpu_j is not None and meter.latest.cpu_j >= 0.0


def test_without_counters_there_is_nothing_to_follow(tmp_path):
    meter = EnergyMeter(POOL, {}, tmp_path, period_s=900.0)
    meter._thread.join(10)
    assert meter.latest is None and not meter._thread.is_alive()


def test_what_one_part_does_not_know_the_sum_does_not_know():
    one = EnergyRecord(cpu_j=1.0, gpu_j=2.0) + EnergyRecord(cpu_j=3.0, is_sampled=True)
    assert one == EnergyRecord(cpu_j=4.0, gpu_j=None, is_sampled=True)
