"""Reading what Slurm prints. The texts are recorded from Slurm 22.05, the numbers of the exit statuses included."""

from pathlib import Path

import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.core.job import JobPhase, JobStatus
from slurminfer.slurm.observe import observe, parse_sacct, parse_squeue

SQUEUE = """\
3|COMPLETED|n[1-4]|1785000000|None
5|FAILED|n1|1785000000|NonZeroExitCode
7|FAILED|n1|1785000000|JobLaunchFailure
8_1|PENDING||N/A|JobArrayTaskLimit
9|PENDING||1785000000|(Nodes required for job are DOWN | DRAINED)
6|RUNNING|n1|1785000000|None
8_0|RUNNING|n1|1785000000|None
"""

SACCT = """\
5|FAILED|n1|3:0
6|CANCELLED by 1001|n1|0:0
8_0|COMPLETED|n1|0:0
8_[1-3%1]|PENDING|None assigned|0:0
11|FAILED|n2|0:9
12|NODE_FAIL|n2|1:0
"""


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A folder that is all of PATH, and a way to put commands there that answer like Slurm's."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name: str, script: str) -> Path:
        path: Path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    return put


def test_squeue_rows_become_statuses():
    found = parse_squeue(SQUEUE)
    assert found["6"] == JobStatus(id="6", phase=JobPhase.RUNNING, state="RUNNING", node="n1")
    assert found["5"].phase is JobPhase.FAILED
    assert found["5"].reason == "NonZeroExitCode"
    assert found["3"].node == "n[1-4]"


def test_a_job_that_waits_has_the_start_that_slurm_expects():
    found = parse_squeue(SQUEUE)
    assert (found["9"].starts_at, found["8_1"].starts_at, found["6"].starts_at) == (1785000000.0, None, None)


def test_squeue_array_tasks_have_ids_of_their_own():
    found = parse_squeue(SQUEUE)
    assert (found["8_0"].phase, found["8_1"].phase) == (JobPhase.RUNNING, JobPhase.PENDING)


def test_squeue_reason_may_contain_the_delimiter():
    assert parse_squeue(SQUEUE)["9"].reason == "(Nodes required for job are DOWN | DRAINED)"


@pytest.mark.parametrize("text", ["", "\n", "slurm_load_jobs: some warning\n"])
def test_squeue_without_rows_is_no_job(text):
    assert parse_squeue(text) == {}
    assert parse_sacct(text) == {}


def test_sacct_rows_become_statuses():
    found = parse_sacct(SACCT)
    assert found["6"].state == "CANCELLED"
    assert found["8_0"].phase is JobPhase.DONE
    assert found["8_[1-3%1]"].node == ""
    assert found["12"].reason == ""


def test_sacct_failure_tells_exit_code_or_signal():
    found = parse_sacct(SACCT)
    assert found["5"].reason == "exit code 3"
    assert found["11"].reason == "signal 9, Killed"


def test_no_ids_need_no_slurm(commands):
    assert observe([]) == {}


def test_without_slurm_the_error_says_so(commands):
    with pytest.raises(SlurmError, match="no Slurm here: squeue is not on PATH"):
        observe(["1"])


def test_an_unknown_id_is_unknown_where_there_is_no_sacct(commands):
    commands("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert observe(["99999"]) == {"99999": JobStatus(id="99999", phase=JobPhase.UNKNOWN, state="UNKNOWN")}


def test_a_failing_sacct_is_no_error(commands):
    commands("squeue", "echo '5|RUNNING|n1|N/A|None'")
    commands("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    found = observe(["5", "4"])
    assert (found["5"].phase, found["4"].phase) == (JobPhase.RUNNING, JobPhase.UNKNOWN)


def test_only_ids_that_squeue_has_forgotten_go_to_sacct(commands, tmp_path):
    commands("squeue", "echo '5|RUNNING|n1|N/A|None'")
    commands("sacct", f"echo \"$@\" > '{tmp_path}/asked'; echo '4|COMPLETED|n1|0:0'")
    assert observe(["5", "4"])["4"].phase is JobPhase.DONE
    assert (tmp_path / "asked").read_text().split()[-1] == "--jobs=4"


def test_an_unreachable_slurmctld_is_an_error_and_not_the_end_of_all_jobs(commands):
    commands("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1")
    with pytest.raises(SlurmError, match="Unable to contact slurm controller"):
        observe(["5"])


def test_view_defaults_of_the_user_change_no_answer(commands, monkeypatch):
    monkeypatch.setenv("SQUEUE_PARTITION", "gpu")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    commands("squeue", 'echo "5|RUNNING|n1|N/A|[$SQUEUE_PARTITION] [$SLURM_TIME_FORMAT]"')
    assert observe(["5"])["5"].reason == "[] [%s]"
