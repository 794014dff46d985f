"""Reading the queue. The texts are recorded from Slurm 22.05."""

import pytest

from slurminfer.core.job import JobPhase, JobStatus
from slurminfer.slurm.queue import parse_queue

SQUEUE = """\
16|PENDING||1795990138|1795990738|10:00|cpu|normal|Resources
15|RUNNING|n1|1795989538|1795990138|10:00|cpu|normal|None
18|PENDING||N/A|N/A|5:00|cpu,low|normal|JobHeldUser
17_0|RUNNING|n2|1795989538|1795989598|1:00|low|scavenge|None
17_1|PENDING||N/A|N/A|1:00|low|scavenge|JobArrayTaskLimit
19|PENDING||1795990138|1795990738|1-00:00:00|cpu|normal|(Nodes required for job are DOWN | DRAINED)
20|COMPLETED|n[1-4]|1795989538|1795989540|UNLIMITED|cpu|normal|None
21|FAILED|n1|1795989538|1795989540|5:00|cpu||NonZeroExitCode
"""


def row(state: str, reason: str) -> str:
    """A row of a job 9 that has no nodes."""
    return f"9|{state}||N/A|N/A|5:00|cpu|normal|{reason}\n"


def test_a_row_becomes_a_status():
    assert parse_queue(SQUEUE)["15"] == JobStatus(
        id="15", phase=JobPhase.RUNNING, state="RUNNING", node="n1", nodes=("n1",), started_at=1795989538.0,
        ends_at=1795990138.0, limit_s=600, partition="cpu", qos="normal",
    )  # fmt: skip


def test_a_job_that_waits_has_the_start_that_slurm_expects_and_no_end():
    found = parse_queue(SQUEUE)
    assert (found["16"].starts_at, found["18"].starts_at, found["15"].starts_at) == (1795990138.0, None, None)
    assert (found["16"].started_at, found["16"].ends_at, found["16"].reason) == (None, None, "Resources")
    assert (found["18"].partition, found["18"].obstacle != "") == ("cpu,low", True)


def test_array_tasks_have_ids_of_their_own():
    found = parse_queue(SQUEUE)
    assert (found["17_0"].phase, found["17_1"].phase) == (JobPhase.RUNNING, JobPhase.PENDING)


def test_a_reason_may_contain_the_delimiter():
    assert parse_queue(SQUEUE)["19"].reason == "(Nodes required for job are DOWN | DRAINED)"


def test_a_job_that_is_over_has_an_end_and_its_nodes():
    found = parse_queue(SQUEUE)
    assert (found["20"].ends_at, found["20"].limit_s, found["20"].nodes) == (
        1795989540.0,
        None,
        ("n1", "n2", "n3", "n4"),
    )
    assert (found["21"].phase, found["21"].reason, found["20"].node) == (JobPhase.FAILED, "NonZeroExitCode", "n[1-4]")


def test_only_wanted_jobs_are_read():
    assert parse_queue(SQUEUE, {"15", "99"}).keys() == {"15"}


def test_ten_thousand_rows_are_ten_thousand_jobs():
    text = "".join(f"{job}|RUNNING|n{job}|1795989538|1795990138|10:00|cpu|normal|None\n" for job in range(10_000))
    assert len(parse_queue(text)) == 10_000


@pytest.mark.parametrize("text", ["", "\n", "slurm_load_jobs: some warning\n"])
def test_without_rows_there_is_no_job(text):
    assert parse_queue(text) == {}


def test_a_job_that_was_cancelled_while_it_waited_has_no_reason_any_more():
    assert parse_queue(row("CANCELLED", "Resources"))["9"].reason == ""


@pytest.mark.parametrize(
    "reason",
    [
        "DependencyNeverSatisfied", "JobHeldUser", "JobHeldAdmin", "PartitionTimeLimit", "PartitionNodeLimit",
        "BadConstraints", "InvalidQOS", "QOSMaxWallDurationPerJobLimit", "AssocMaxNodePerJobLimit",
        "QOSMinCpuNotSatisfied", "launch failed requeued held", "AssocMaxWallDurationPerJobLimit",
        "Job's account not permitted to use this partition (closed allows nobody not tests)",
        "Job's QOS not permitted to use this partition (qosonly allows tiny not normal)",
    ],
)  # fmt: skip
def test_a_job_that_cannot_start_as_it_is_has_an_obstacle(reason):
    assert parse_queue(row("PENDING", reason))["9"].obstacle


@pytest.mark.parametrize(
    "reason",
    [
        "Priority", "Resources", "Dependency", "BeginTime", "None", "QOSMaxCpuPerUserLimit", "AssocGrpCpuLimit",
        "PartitionDown", "ReqNodeNotAvail, UnavailableNodes:n1", "(Nodes required for job are DOWN | DRAINED)",
        "ReqNodeNotAvail, Reserved for maintenance", "PartitionConfig",
    ],
)  # fmt: skip
def test_a_job_that_only_has_to_wait_has_none(reason):
    assert not parse_queue(row("PENDING", reason))["9"].obstacle


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("PartitionTimeLimit", "shorter `time`"),
        ("QOSMaxCpuPerUserLimit", "some of them end"),
        ("AssocGrpCpuLimit", "some of them end"),
        ("ReqNodeNotAvail, Reserved for maintenance", "scontrol show reservation"),
        ("ReqNodeNotAvail, UnavailableNodes:n2", "sinfo -R"),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions", "sinfo -R"),
    ],
)
def test_a_job_that_waits_has_an_advice(reason, advice):
    assert advice in parse_queue(row("PENDING", reason))["9"].advice


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0b", "\x1c"])
def test_a_name_ends_its_row_only_where_slurm_ends_it(separator):
    row = "7|RUNNING|n1|1700000000|1700003600|1:00:00|p|q|None\t"
    name = f"a{separator}7|CANCELLED|n1|1|2|1:00|p|q|None\tb"
    (found,) = parse_queue(f"{row}{name}\n").values()
    assert (found.state, found.name) == ("RUNNING", name)
