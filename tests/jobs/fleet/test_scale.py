"""`slurminfer scale`: what a user may ask for, and what the controller then reads."""

import pytest

from slurminfer.core.errors import RunDirectoryError, UsageError
from slurminfer.jobs.fleet.scale import scale

from .conftest import Cluster


def test_a_number_is_kept_until_the_spec_shall_count_again(cluster):
    assert scale(cluster.run, "cpu", "4") == "pool 'cpu': 4 workers are wanted"
    record = cluster.run.read_scale()
    assert record.pinned == {"cpu": 4} and record.asked_at["cpu"] > 0
    assert scale(cluster.run, "cpu", "auto") == "pool 'cpu': 2 workers are wanted"
    assert cluster.run.read_scale().pinned == {}


@pytest.mark.parametrize(
    ("pool", "number", "message"),
    [
        ("gpu", "1", "has no pool 'gpu'; pools: cpu"),
        ("cpu", "-1", "number of workers '-1': expected 0 to 10000, or 'auto'"),
        ("cpu", "10001", "expected 0 to 10000"),
        ("cpu", "many", "'many'"),
    ],
)
def test_what_cannot_be_is_refused(cluster, pool, number, message):
    with pytest.raises(UsageError, match=message):
        scale(cluster.run, pool, number)


def test_a_stopped_deployment_cannot_be_scaled(cluster):
    cluster.run.clear()
    with pytest.raises(RunDirectoryError, match="'d' is stopped"):
        scale(cluster.run, "cpu", "1")


def test_what_the_spec_says_of_an_elastic_pool(tmp_path):
    cluster = Cluster(tmp_path, "max_workers = 4")
    assert scale(cluster.run, "cpu", "auto") == "pool 'cpu': 2 to 4 workers are wanted, by the load"
    assert scale(cluster.run, "cpu", "1") == "pool 'cpu': 1 worker is wanted"
