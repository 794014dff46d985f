"""How a real Slurm forecasts and shortens the jobs of workers."""

import subprocess
import time

import pytest

from slurminfer.core.job import JobPhase
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.fleet.forecasts import Forecaster
from slurminfer.jobs.fleet.rules import link
from slurminfer.jobs.fleet.rules.desired import desired_of
from slurminfer.jobs.fleet.rules.observed import Observed, Past
from slurminfer.slurm.limits import qos_limits
from slurminfer.slurm.submit import SlurmLauncher

from .conftest import wait_for

pytestmark = pytest.mark.slurm
SPEC = """
name = "d"
[model]
path = "/models/m"
[[pool]]
name = "w"
time = "04:00:00"
time_min = "01:00:00"
[router]
time = "00:30:00"
"""


def sbatch(*options: str) -> str:
    asked = ["sbatch", "--parsable", "--chdir=/", "--output=/dev/null", "--exclusive", *options, "--wrap", "sleep 600"]
    return subprocess.check_output(asked, encoding="utf-8").strip()


def test_before_a_reservation_a_short_job_is_forecast_sooner_and_chosen(sandbox, tmp_path):
    create = ["reservationname=soon", "starttime=now+150minutes", "duration=120", "flags=maint,ignore_jobs"]
    subprocess.check_call(["scontrol", "create", "reservation", *create, "nodes=ALL", "users=root"])
    try:
        spec, run = parse_spec(SPEC), RunDirectory(tmp_path / "d")
        run.create()
        desired, now = desired_of(spec, {}, has_walltime=True), time.time()
        found = Forecaster(run, SlurmLauncher().forecast).forecasts(spec, desired, Observed(members=()), now)
    finally:
        subprocess.check_call(["scontrol", "delete", "reservationname=soon"])
    waits = {start.time_s / 3600: start.wait_s for start in found["w"].starts if start.wait_s is not None}
    assert waits.keys() == {4.0, 2.0, 1.0} and waits[4.0] > 150 * 60 > waits[2.0] == pytest.approx(waits[1.0], abs=30)
    assert found["router"].starts[0].wait_s == pytest.approx(waits[1.0], abs=30)
    chosen = link.choose(link.Outlook(plan=desired.pools[1], past=Past(), now=now, forecast=found["w"]))
    assert chosen is not None and chosen.time_s == 2 * 3600


def test_a_job_that_accepts_less_is_shortened_to_start_sooner_and_stays_so_when_it_is_requeued(submit, shared):
    runs = sbatch("--nodes=3", "--time=5")
    wait_for(runs, JobPhase.RUNNING)
    waits = sbatch("--nodes=4", "--time=5")
    job = submit(["sleep", "600"], shared / "logs", time_min_s=120)  # ten minutes would keep the one before waiting
    try:
        running = wait_for(job, JobPhase.RUNNING)
        assert running.limit_s is not None and 120 <= running.limit_s < 600
        assert running.ends_at is not None and running.started_at is not None
        assert running.ends_at - running.started_at == running.limit_s
        subprocess.check_call(["scontrol", "requeue", job])
        assert wait_for(job, JobPhase.PENDING).limit_s == running.limit_s
    finally:
        SlurmLauncher().cancel([runs, waits, job])


def test_the_sandbox_enforces_no_limits_of_qos(sandbox):
    assert qos_limits() == {}
