"""Reading what Slurm prints. The texts are recorded from Slurm 22.05, the numbers of the exit statuses included."""

import signal
from pathlib import Path

import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.core.job import JobPhase, JobStatus
from slurminfer.slurm.observe import (
    JobDetails,
    cause_of,
    job_end_time,
    observe,
    parse_details,
    parse_sacct,
    parse_squeue,
    root_cause,
)

SQUEUE = """\
3|COMPLETED|n[1-4]|None
5|FAILED|n1|NonZeroExitCode
7|FAILED|n1|JobLaunchFailure
8_1|PENDING||JobArrayTaskLimit
9|PENDING||(Nodes required for job are DOWN | DRAINED)
6|RUNNING|n1|None
8_0|RUNNING|n1|None
"""

SACCT = """\
5|FAILED|n1|3:0
6|CANCELLED by 1001|n1|0:0
8_0|COMPLETED|n1|0:0
8_[1-3%1]|PENDING|None assigned|0:0
11|FAILED|n2|0:9
12|NODE_FAIL|n2|1:0
"""

DETAIL_WIDTHS = (64, 32, 64, 16, 16, 32)


def detail_row(*values):
    return "".join(value.ljust(width) for value, width in zip(values, DETAIL_WIDTHS, strict=True)) + "\n"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A folder that is all of PATH, and a way to put commands there that answer like Slurm's."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name: str, script: str) -> Path:
        path: Path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return put


def test_squeue_rows_become_statuses():
    found = parse_squeue(SQUEUE)
    assert found["6"] == JobStatus(id="6", phase=JobPhase.RUNNING, state="RUNNING", node="n1")
    assert found["5"].phase is JobPhase.FAILED
    assert found["5"].reason == "NonZeroExitCode"
    assert found["3"].node == "n[1-4]"


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


def test_details_of_a_requeued_job_count_its_restarts():
    row = detail_row("21", "PENDING", "BeginTime", "0", "2", "N/A")
    assert parse_details(row) == {
        "21": JobDetails(state="PENDING", reason="BeginTime", wait_status=0, restarts=2, ends_at=None)
    }


def test_details_of_a_running_job_have_its_end_in_unix_seconds():
    row = detail_row("6", "RUNNING", "None", "0", "0", "1795427201")
    assert parse_details(row)["6"].ends_at == 1795427201.0


@pytest.mark.parametrize(
    ("state", "reason", "wait_status", "cause"),
    [
        ("FAILED", "NonZeroExitCode", 768, "FAILED (exit code 3)"),
        ("FAILED", "JobLaunchFailure", int(signal.SIGKILL), "FAILED (signal 9, Killed)"),
        ("FAILED", "NodeDown", 0, "FAILED (NodeDown)"),
        ("OUT_OF_MEMORY", "OutOfMemory", 0, "OUT_OF_MEMORY"),
        ("TIMEOUT", "TimeLimit", 0, "TIMEOUT"),
        ("NODE_FAIL", "NodeDown", 0, "NODE_FAIL"),
        ("PREEMPTED", "", 0, "PREEMPTED"),
        ("COMPLETED", "", 0, ""),
        ("RUNNING", "", 0, ""),
    ],
)
def test_cause_is_slurms_own_word(state, reason, wait_status, cause):
    details = JobDetails(state=state, reason=reason, wait_status=wait_status, restarts=0, ends_at=None)
    assert cause_of(details) == cause


def test_no_ids_need_no_slurm(commands):
    assert observe([]) == {}


def test_without_slurm_the_error_says_so(commands):
    with pytest.raises(SlurmError, match="no Slurm here: squeue is not on PATH"):
        observe(["1"])


def test_an_unknown_id_is_unknown_where_there_is_no_sacct(commands):
    commands("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert observe(["99999"]) == {"99999": JobStatus(id="99999", phase=JobPhase.UNKNOWN, state="UNKNOWN")}


def test_a_failing_sacct_is_no_error(commands):
    commands("squeue", "echo '5|RUNNING|n1|None'")
    commands("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    found = observe(["5", "4"])
    assert (found["5"].phase, found["4"].phase) == (JobPhase.RUNNING, JobPhase.UNKNOWN)


def test_only_ids_that_squeue_has_forgotten_go_to_sacct(commands, tmp_path):
    commands("squeue", "echo '5|RUNNING|n1|None'")
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
    commands("squeue", 'echo "5|RUNNING|n1|[$SQUEUE_PARTITION] [$SLURM_TIME_FORMAT]"')
    assert observe(["5"])["5"].reason == "[] [%s]"


def test_root_cause_of_a_job_that_only_accounting_knows(commands):
    commands("squeue", "exit 0")
    commands("sacct", "echo '5|FAILED|n1|3:0'")
    assert root_cause("5") == "FAILED (exit code 3)"
    assert job_end_time("5") is None


def test_root_cause_of_a_forgotten_job_is_empty(commands):
    commands("squeue", "exit 0")
    assert root_cause("5") == ""
