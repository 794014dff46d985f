"""Whether Slurm has taken a job away, or somebody has cancelled it."""

import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.core.job import JobEnding, JobPhase, JobStatus
from slurminfer.slurm.ending import Endings, ends_at, is_requeued, is_taken_away, parse, parse_preempted, parse_sacct


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("TimeLimit           N/A                 COMPLETING", "its walltime limit is over"),
        ("None                1795982482          RUNNING", "a job of higher priority takes its nodes"),  # grace time
        ("None                1795982482          COMPLETING", "a job of higher priority takes its nodes"),
        ("None                N/A                 COMPLETING", "the job was cancelled"),
        ("None                N/A                 RUNNING", ""),  # a signal of srun, or of somebody on the node
        ("", ""),
    ],
)
def test_a_row_as_slurm_prints_it_says_why_the_job_is_ended(row, expected, monkeypatch):
    assert parse(row) == expected
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr("slurminfer.slurm.ending.ask", lambda argv, env=None: row)
    assert is_taken_away() == (bool(expected) and "cancelled" not in expected)


def test_outside_of_a_job_nothing_is_taken_away(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not is_taken_away()


@pytest.mark.parametrize(
    ("restarts", "row", "expected"),
    [(None, "1   ", True), (None, "0   ", False), ("1", "1", False), ("1", "2", True), (None, "", False)],
)
def test_a_job_that_was_sent_back_to_the_queue_has_one_restart_more_than_it_was_told(
    restarts, row, expected, monkeypatch
):
    monkeypatch.setattr("slurminfer.slurm.ending.ask", lambda argv, env=None: row)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not is_requeued()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    if restarts:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    assert is_requeued() == expected


@pytest.mark.parametrize(("row", "expected"), [("1795990138\n", 1795990138.0), ("N/A\n", None), ("", None)])
def test_slurm_tells_the_job_when_its_limit_is(row, expected, monkeypatch):
    monkeypatch.setattr("slurminfer.slurm.ending.ask", lambda argv, env=None: row)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert ends_at() is None
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert ends_at() == expected


# Recorded from Slurm 22.05; 28 had --mem=100M.
SACCT = """\
28|FAILED|100M|
28.batch|FAILED||12196K
28.0|CANCELLED by 0||315848K
30|CANCELLED by 0|100M|
30.batch|CANCELLED||12152K
31|FAILED|100M|
31.batch|CANCELLED||
"""


def test_accounting_says_what_memory_was_used_and_who_cancelled():
    found = parse_sacct(SACCT)
    assert found["28"] == JobEnding(memory="limit 100 MiB, 308 MiB seen in use")
    assert found["30"].cancelled_by == "root (user 0)"
    assert found["31"] == JobEnding(memory="limit 100 MiB")
    assert parse_sacct("9|CANCELLED by 999999999|4Gn|\n")["9"] == JobEnding(
        cancelled_by="user 999999999", memory="limit 4.0 GiB a node"
    )
    assert parse_sacct("sacct: error\n") == {}


def test_a_preempted_job_is_known_by_the_time_of_its_preemption():
    assert parse_preempted("35   1795989800   \n36   N/A   \n") == {"35"}


def test_endings_are_asked_for_once(monkeypatch):
    asked = []

    def ask(argv, env=None):
        asked.append(argv[0])
        return SACCT if argv[0] == "sacct" else "31   1795989800\n"

    monkeypatch.setattr("slurminfer.slurm.ending.ask", ask)
    now = [0.0]
    endings = Endings(clock=lambda: now[0])
    jobs = {id: JobStatus(id=id, phase=JobPhase.FAILED, state="FAILED") for id in ("28", "31", "99")}
    jobs["5"] = JobStatus(id="5", phase=JobPhase.RUNNING, state="RUNNING")
    for now[0] in (0.0, 1.0):
        found = endings.complete(jobs)
        assert found["28"].ending == JobEnding(memory="limit 100 MiB, 308 MiB seen in use")
        assert found["31"].ending == JobEnding(memory="limit 100 MiB", preempted=True)
        assert (found["5"], found["99"].ending) == (jobs["5"], None)
        assert asked == ["sacct", "squeue"]
    now[0] = 31.0  # accounting is late: what is still unknown is asked for again
    endings.complete(jobs)
    assert len(asked) == 4


def test_without_an_answer_the_statuses_stay(monkeypatch):
    def ask(argv, env=None):
        raise SlurmError("no accounting")

    monkeypatch.setattr("slurminfer.slurm.ending.ask", ask)
    jobs = {"7": JobStatus(id="7", phase=JobPhase.FAILED, state="FAILED")}
    assert Endings().complete(jobs) == jobs
