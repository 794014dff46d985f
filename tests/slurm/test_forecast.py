"""Reading `sbatch --test-only`. Most texts are recorded from Slurm 22.05."""

import time

import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.slurm.forecast import Forecast, forecast, parse_forecast

SCRIPT = "#!/bin/sh\n#SBATCH --time=10\ntrue\n"


def test_a_start_in_unix_seconds():
    text = "sbatch: Job 5 to start at 1795989537 using 2 processors on nodes n[1-2] in partition cpu\n"
    assert parse_forecast(text) == Forecast(starts_at=1795989537.0, nodes=("n1", "n2"), partition="cpu")


def test_a_start_in_local_time_and_without_a_partition():
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(1795989537))
    found = parse_forecast(f"sbatch: Job 5 to start at {at} using 64 processors on n1\n")
    assert (found.starts_at, found.nodes, found.partition) == (1795989537.0, ("n1",), "")


def test_jobs_that_give_way():
    text = "sbatch: Job 5 to start at 1795989537 using 2 processors on nodes n1 in partition high\n"
    assert parse_forecast(f"{text}sbatch:   Preempts: 3,4\n").preempts == ("3", "4")


@pytest.mark.parametrize(
    "text", ["", "Submitted batch job 5\n", "sbatch: Job 5 to start at N/A using 1 processors on n1"]
)
def test_anything_else_is_no_forecast(text):
    with pytest.raises(SlurmError, match="says no start"):
        parse_forecast(text)


def test_a_refusal_is_a_reason(commands):
    commands("sbatch", "echo 'allocation failure: Requested node configuration is not available' >&2; exit 1")
    found = forecast(SCRIPT)
    assert found == Forecast(reason="allocation failure: Requested node configuration is not available")
    commands(
        "sbatch",
        "echo 'sbatch: error: invalid partition specified: nope' >&2;"
        "echo 'allocation failure: Invalid partition name specified' >&2; exit 1",
    )
    assert forecast(SCRIPT).reason.startswith("invalid partition specified: nope; ")
    commands("sbatch", "echo 'sbatch: error: Invalid --gres specification' >&2; exit 1")
    assert forecast(SCRIPT).reason == "Invalid --gres specification"


@pytest.mark.parametrize(
    "words",
    [
        "allocation failure: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Socket timed out",
        "sbatch: fatal: Could not establish a configuration source",
    ],
)
def test_a_slurm_that_does_not_answer_is_no_refusal(commands, words):
    commands("sbatch", f"echo '{words}' >&2; exit 1")
    with pytest.raises(SlurmError):
        forecast(SCRIPT)


def test_nothing_of_the_job_around_reaches_sbatch(commands, monkeypatch, tmp_path):
    for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "SLURM_CPU_BIND"):
        monkeypatch.setenv(name, "x")
    (tmp_path / "slurm.conf").touch()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    commands(
        "sbatch",
        f"""
set > '{tmp_path}/environment'; echo "$@" > '{tmp_path}/options'
while read -r line; do echo "$line"; done > '{tmp_path}/script'
echo 'sbatch: Job 5 to start at 1795989537 using 1 processors on nodes n1 in partition cpu' >&2""",
    )
    assert forecast(SCRIPT, "--nodelist=n1").starts_at == 1795989537.0
    environment = (tmp_path / "environment").read_text()
    assert "SLURM_CONF=" in environment
    assert not any(name in environment for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "SLURM_CPU_BIND"))
    assert (tmp_path / "options").read_text().split() == ["--test-only", "--nodelist=n1"]
    assert (tmp_path / "script").read_text() == SCRIPT
