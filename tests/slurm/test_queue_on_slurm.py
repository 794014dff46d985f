"""Queue, forecast, reservations and limits of a real Slurm."""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from slurminfer.core.job import JobPhase, JobRequest, RequeueableEntry
from slurminfer.slurm.limits import partitions, qos_names
from slurminfer.slurm.observe import observe
from slurminfer.slurm.reservations import blocking, longest_limit_s, reservations
from slurminfer.slurm.submit import SlurmLauncher

pytestmark = pytest.mark.slurm
OPTIONS = ["--chdir=/", "--output=/dev/null", "--wrap", "sleep 300"]


class Nothing(RequeueableEntry):
    """A job that does nothing; it is never submitted."""

    def argv(self) -> list[str]:
        return ["true"]


def request(folder: Path, **fields: Any) -> JobRequest:
    return JobRequest(name="test", role="test", entry=Nothing(), log_folder=folder, **fields)


def sbatch(*options: str) -> str:
    return subprocess.check_output(["sbatch", "--parsable", *options, *OPTIONS], encoding="utf-8").strip()


def known_jobs() -> set[str]:
    asked = ["squeue", "--noheader", "--array", "--states=all", "--format=%i"]
    return set(subprocess.check_output(asked, encoding="utf-8").split())


def test_one_call_sees_all_jobs_of_this_user_and_forgets_none(sandbox):
    array = sbatch("--array=0-29", "--hold", "--time=3")
    runs = sbatch("--time=3")
    ids = [f"{array}_{task}" for task in range(30)]
    try:
        found = observe([*ids, runs, "999999"])
    finally:
        SlurmLauncher().cancel([array, runs])
    assert {found[job].state for job in ids} == {"PENDING"}
    assert {found[job].limit_s for job in [*ids, runs]} == {180}
    assert found[runs].partition == "cpu" and found["999999"].phase is JobPhase.UNKNOWN


def test_a_forecast_submits_nothing_and_says_when_or_why_not(sandbox, tmp_path):
    before = known_jobs()
    found = SlurmLauncher().forecast(request(tmp_path, partition="gpu", nodes=2, time_s=600))
    assert found.partition == "gpu" and len(found.nodes) == 2
    assert found.starts_at is not None and abs(found.starts_at - time.time()) < 3600
    refused = SlurmLauncher().forecast(request(tmp_path, partition="nope"))
    assert (refused.starts_at, "invalid partition specified: nope" in refused.reason) == (None, True)
    assert SlurmLauncher().forecast(request(tmp_path, nodes=20)).reason
    assert known_jobs() <= before  # Slurm may have forgotten some that had ended
    assert not list(tmp_path.iterdir())


def test_a_maintenance_shortens_jobs(sandbox, tmp_path):
    create = ["reservationname=window", "starttime=now+4hours", "duration=120", "flags=maint,ignore_jobs", "nodes=ALL"]
    subprocess.check_call(["scontrol", "create", "reservation", *create, "users=root"])
    try:
        nodes, now = partitions()["cpu"].node_names, time.time()
        blocked = blocking(reservations(), "slurminfer-test")
        limit = longest_limit_s(blocked, nodes, now)
        assert limit is not None and 3.9 * 3600 < limit <= 4 * 3600
        (window,) = (one for one in blocked if "MAINT" in one.flags)
        launcher = SlurmLauncher()
        fits, reaches_in = (launcher.forecast(request(tmp_path, time_s=limit + more)) for more in (-60, 3600))
        assert fits.starts_at is not None and fits.starts_at < window.starts_at
        assert reaches_in.starts_at is not None and reaches_in.starts_at >= window.ends_at
    finally:
        subprocess.check_call(["scontrol", "delete", "reservationname=window"])


def test_limits_of_partitions_and_qos(sandbox):
    found = partitions()
    assert found.keys() == {"cpu", "gpu", "low", "high"}
    assert (found["cpu"].is_default, found["cpu"].max_time_s, found["cpu"].takes_jobs) == (True, 86_400, True)
    assert (found["low"].preempt_mode, found["low"].grace_s) == ("REQUEUE", 8)
    assert "normal" in qos_names()
