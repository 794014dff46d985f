"""What a process learns of its job from the environment."""

import pytest

from slurminfer.core.slurm_env import JobPlace, is_local, memory_limits, task_count

MIB = 1 << 20


def test_a_task_is_placed_by_what_slurm_says():
    place = JobPlace.here(60, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2", "SLURM_PROCID": "1"})
    assert (place.job, place.epoch, place.node_rank, place.local) == ("7", 2, 1, False)


def test_a_local_process_has_no_end_and_is_its_own_head():
    place = JobPlace.here(60, {"SLURMINFER_LOCAL": "1", "SLURM_JOB_ID": "7", "SLURM_PROCID": "3"})
    assert (place.epoch, place.node_rank, place.local, place.ends_at) == (0, 0, True, None)
    assert is_local({"SLURMINFER_LOCAL": "1"}) and not is_local({})


def test_the_walltime_is_slurms_own_where_it_says_it():
    assert JobPlace.here(60, {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "1700000000"}).ends_at == 1700000000.0


@pytest.mark.parametrize(
    ("environ", "tasks"),
    [
        ({}, 1),
        ({"SLURM_STEP_NUM_TASKS": "4"}, 1),
        ({"SLURM_STEP_ID": "batch", "SLURM_STEP_NUM_TASKS": "4"}, 1),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}, 4),
    ],
)
def test_only_a_numbered_step_has_several_tasks(environ, tasks):
    assert task_count(environ) == tasks


def test_memory_that_was_asked_for_per_node_or_per_cpu():
    assert memory_limits({"SLURM_MEM_PER_NODE": "100"}) == [100 * MIB]
    assert memory_limits({"SLURM_MEM_PER_CPU": "10", "SLURM_CPUS_ON_NODE": "4"}) == [40 * MIB]
    assert memory_limits({"SLURM_MEM_PER_NODE": "0"}) == memory_limits({}) == []
