import pytest

from slurminfer.core.workers.ids import id_of_several, pool_name, role_of


@pytest.mark.parametrize(
    ("worker_id", "role", "pool"),
    [
        ("cpu-0", "cpu-0", "cpu"),
        ("cpu-0.3", "cpu-0", "cpu"),
        ("cpu-12.10", "cpu-12", "cpu"),
        ("a-1.2-0", "a-1.2-0", "a-1.2"),  # a pool's name may look like an id
        ("a-1.2-0.3", "a-1.2-0", "a-1.2"),
        ("big-cpu-7.0", "big-cpu-7", "big-cpu"),
    ],
)
def test_ids_tell_their_job_and_pool(worker_id, role, pool):
    assert (role_of(worker_id), pool_name(worker_id)) == (role, pool)


def test_ids_of_several_are_numbered():
    assert id_of_several("a-1.2-0", 3) == "a-1.2-0.3"
