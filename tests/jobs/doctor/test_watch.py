"""Jobs of the doctor, from their submission to an outcome, by an injected clock."""

from collections.abc import Callable
from pathlib import Path

import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.core.files import write_atomic
from slurminfer.core.job import JobPhase, JobStatus
from slurminfer.jobs.doctor.visit import Visit
from slurminfer.jobs.doctor.watch import Round
from slurminfer.nodes.doctor import meeting

from ...support.launchers import FakeLauncher
from ...support.sites import network, report, route


class Clock:
    """A clock that goes on only while somebody sleeps; what happens meanwhile is called."""

    def __init__(self, meanwhile: Callable[[float], None] = lambda now: None) -> None:
        self.now, self.meanwhile = 1000.0, meanwhile

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile(self.now)


class ByJob(FakeLauncher):
    """A launcher whose jobs have statuses of their own."""

    def __init__(self, **statuses: JobStatus) -> None:
        super().__init__(JobPhase.PENDING)
        self.statuses = {name.removeprefix("job"): status for name, status in statuses.items()}

    def observe(self, ids):
        return {job: self.statuses[job] for job in ids}


def visit(folder: Path, job: str = "1", tasks: int = 1) -> Visit:
    path = folder / job
    path.mkdir()
    write_atomic(path / meeting.SECRET, "secret")
    return Visit(partition=f"p{job}", job=job, folder=path, tasks=tasks, submitted_at=1000.0)


def answers(one: Visit, rank: int = 0) -> None:
    """What a task leaves; its beacon is gone already."""
    meeting.write(meeting.listen_file(one.folder, rank), meeting.Listening(host="n1", port=9, targets={}))
    found = meeting.TaskReport(node=report(), routes=(route("n1", "n2", "10.0.0.2"),))
    meeting.write(meeting.report_file(one.folder, rank), found)


def wait(launcher, visits, clock=None, patience_s=60.0):
    clock = clock or Clock()
    Round(launcher, network("login"), patience_s, now=clock, sleep=clock.sleep).wait(visits)


def test_a_job_that_answers_is_seen_and_its_tasks_may_end(tmp_path):
    one = visit(tmp_path)
    launcher = FakeLauncher(JobPhase.PENDING, JobPhase.RUNNING, JobPhase.RUNNING, JobPhase.DONE)
    wait(launcher, [one], Clock(lambda now: answers(one) if now > 1001 else None))
    assert (one.outcome, one.waited_s, (one.folder / meeting.DONE).exists()) == ("seen", 1.0, True)
    assert len(one.node_reports()) == 1 and one.all_routes() == (route("n1", "n2", "10.0.0.2"),)
    assert launcher.cancelled == []


def test_a_job_that_waits_too_long_is_cancelled_and_the_others_go_on(tmp_path):
    one, other = visit(tmp_path, "1"), visit(tmp_path, "2")
    launcher = ByJob(
        job1=JobStatus(id="1", phase=JobPhase.PENDING, state="PENDING", reason="Resources"),
        job2=JobStatus(id="2", phase=JobPhase.RUNNING, state="RUNNING"),
    )

    def meanwhile(now: float) -> None:
        if now > 1100:
            answers(other)
            launcher.statuses["2"] = JobStatus(id="2", phase=JobPhase.DONE, state="COMPLETED")

    wait(launcher, [one, other], Clock(meanwhile))
    assert (one.outcome, one.reason) == ("waited", "its job did not start within 60 s; Slurm's reason: Resources")
    assert (other.outcome, launcher.cancelled) == ("seen", ["1"])


def test_a_job_that_cannot_start_is_cancelled_at_once(tmp_path):
    one, clock = visit(tmp_path), Clock()
    status = JobStatus(
        id="1", phase=JobPhase.PENDING, state="PENDING", reason="InvalidQOS", obstacle="its QOS may not be used here"
    )
    wait(ByJob(job1=status), [one], clock)
    assert (one.outcome, clock.now) == ("waited", 1000.0)
    assert one.reason == "its job cannot start: its QOS may not be used here (Slurm: InvalidQOS)"


def test_a_job_that_leaves_no_log_may_not_see_the_folder(tmp_path):
    one = visit(tmp_path)
    wait(FakeLauncher(JobPhase.FAILED), [one])
    assert one.outcome == "failed"
    assert one.reason.startswith("its job ended as FAILED: it left no log") and "do not see this folder" in one.reason


def test_a_job_that_fails_says_why_in_its_log(tmp_path):
    one = visit(tmp_path)
    (one.folder / "1_0_log.out").write_text("starting\nModuleNotFoundError: No module named 'psutil'\n")
    wait(FakeLauncher(JobPhase.RUNNING, JobPhase.FAILED), [one])
    assert one.reason == "its job ended as FAILED: ModuleNotFoundError: No module named 'psutil'"


def test_reports_may_appear_after_the_end_of_their_job(tmp_path):
    one = visit(tmp_path, tasks=2)
    answers(one, 0)
    wait(FakeLauncher(JobPhase.DONE), [one], Clock(lambda now: answers(one, 1) if now > 1010 else None))
    assert one.outcome == "seen" and len(one.node_reports()) == 2


def test_a_job_of_which_a_node_does_not_answer_is_given_up(tmp_path):
    one, launcher = visit(tmp_path, tasks=2), FakeLauncher(JobPhase.RUNNING)
    answers(one, 0)
    wait(launcher, [one])
    assert one.outcome == "failed" and "1 of 2 nodes answered within 180 s" in one.reason
    assert launcher.cancelled == ["1"]


def test_a_slurm_that_does_not_answer_does_not_make_it_wait_for_ever(tmp_path):
    one, clock = visit(tmp_path), Clock()
    wait(FakeLauncher(SlurmError), [one], clock)
    assert (one.outcome, clock.now) == ("waited", 1061.0)


def test_an_interrupt_cancels_all_jobs(tmp_path):
    visits = [visit(tmp_path, "1"), visit(tmp_path, "2")]
    launcher = FakeLauncher(JobPhase.PENDING, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        wait(launcher, visits)
    assert launcher.cancelled == ["1", "2"]


def test_a_job_that_does_not_end_by_itself_is_cancelled(tmp_path):
    one, launcher = visit(tmp_path), FakeLauncher(JobPhase.RUNNING)
    answers(one)
    wait(launcher, [one])
    assert (one.outcome, launcher.cancelled) == ("seen", ["1"])
