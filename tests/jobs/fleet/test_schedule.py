"""A controller that chooses walltimes by what the scheduler says of jobs to come."""

from slurminfer.core.errors import SlurmError
from slurminfer.core.job import JobPhase, JobRequest
from slurminfer.jobs.fleet.allowed import Allowed
from slurminfer.jobs.fleet.calendar import Calendar
from slurminfer.jobs.fleet.forecasts import Forecaster
from slurminfer.jobs.fleet.schedule import Schedule
from slurminfer.slurm.forecast import Forecast
from slurminfer.slurm.limits import Partition

from .conftest import Cluster

QUEUE_S = 3600


def cluster_with(tmp_path, answer) -> Cluster:
    """Two workers of an hour at most, where the partition allows 40 minutes; `answer` is Slurm's forecast for a job."""
    cluster = Cluster(tmp_path, 'time_min = "00:10:00"')
    partitions = {"cpu": Partition(name="cpu", is_default=True, max_time_s=2400)}
    schedule = Schedule(
        Allowed(lambda: partitions, dict),
        Calendar(tuple, lambda: partitions),
        Forecaster(cluster.run, lambda request: answer(cluster, request), lambda: cluster.now),
    )
    cluster.controller = cluster.new_controller(schedule)
    return cluster


def busy(cluster: Cluster, request: JobRequest) -> Forecast:
    return Forecast(starts_at=cluster.now + (QUEUE_S if request.time_s > 1200 else 60))


def submitted(cluster: Cluster) -> list[tuple[int, int | None]]:
    """Limits and least limits of the workers that the controller has submitted."""
    return [(job.time_s, job.time_min_s) for job in cluster.table.requests.values() if job is not None]


def test_a_missing_worker_gets_the_limit_that_serves_most(tmp_path):
    cluster = cluster_with(tmp_path, busy)
    cluster.tick()
    cluster.end("cpu-0", JobPhase.DONE, "CANCELLED")
    cluster.tick(10)
    assert submitted(cluster) == [(1200, 960)]  # which loses as much to loading as 20 minutes lose with the wait
    (said,) = (text for text in cluster.decisions() if "is submitted" in text)
    assert "00:20:00 of up to 00:40:00: Slurm forecasts a start in 60 s, against 60 min for the longest" in said


def test_where_slurm_does_not_answer_a_worker_gets_the_longest_limit_that_is_allowed(tmp_path):
    def away(cluster: Cluster, request: JobRequest) -> Forecast:
        raise SlurmError("sbatch: no answer")

    cluster = cluster_with(tmp_path, away)
    cluster.tick()
    cluster.end("cpu-0", JobPhase.DONE, "CANCELLED")
    cluster.tick(10)
    assert submitted(cluster) == [(2400, 600)]


def test_a_forecast_never_submits_anything_by_itself(tmp_path):
    cluster = cluster_with(tmp_path, busy)
    jobs = len(cluster.table.requests)
    for _ in range(3):
        cluster.tick(100)
    assert len(cluster.table.requests) == jobs
