"""`slurminfer doctor` on a real Slurm, as an ordinary user."""

import json
import signal
import subprocess

import msgspec
import pytest

from slurminfer.core.site.doctor import PartitionProfile, SiteProfile

from ..support.waiting import eventually
from .conftest import SLURMINFER

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]
DOCTOR = (*SLURMINFER, "doctor")
ALL = {"cpu", "gpu", "low", "high"}


@pytest.fixture(autouse=True)
def use_sandbox(sandbox, monkeypatch):
    """Slurm's commands in these tests ask the sandbox's Slurm."""
    for name, value in sandbox.env().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def environment(shared):
    return {"SLURMINFER_HOME": str(shared / "home")}


@pytest.fixture
def execute(sandbox, ordinary_user, environment):
    def execute(*words):
        return sandbox.run_as(ordinary_user, [*DOCTOR, *words], environment, timeout_s=200)

    return execute


def partitions_of(shared) -> dict[str, PartitionProfile]:
    """Those of the profile that is kept."""
    profile = msgspec.json.decode((shared / "home/site/doctor.json").read_text(), type=SiteProfile)
    return {one.name: one for one in profile.partitions}


def jobs() -> str:
    """The doctor's jobs that wait or run."""
    return subprocess.check_output(["squeue", "--noheader", "--all", "--name=doctor", "--format=%i"], encoding="utf-8")


@pytest.fixture
def no_node_is_free(sandbox):
    """Whatever is submitted waits for the end of a maintenance."""
    window = [
        "reservationname=now",
        "starttime=now",
        "duration=60",
        "flags=maint,ignore_jobs",
        "nodes=ALL",
        "users=root",
    ]
    subprocess.check_call(["scontrol", "create", "reservation", *window])
    yield
    subprocess.check_call(["scontrol", "delete", "reservationname=now"])


def test_one_job_in_each_partition_learns_what_it_gives(execute, shared):
    done = execute("--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["cluster"]["name"], found["cluster"]["has_accounting"]) == ("sandbox", True)
    kept = partitions_of(shared)
    assert kept.keys() == ALL
    for partition in kept.values():
        assert (partition.outcome, partition.gpu_option, len(partition.reports)) == ("seen", "--gpus-per-node=1", 2)
        assert {(kind.type, kind.per_node, kind.nodes) for kind in partition.gpus} == {("h100", 8, 2), ("a100", 8, 2)}
        for report in partition.reports:
            assert report.may_submit and report.machine.gpus.visible_by == "number"
            assert report.machine.memory.slurm_limit == 200 << 20  # DefMemPerCPU of two CPUs
            assert report.clock_offset_s is not None and report.clock_error_s is not None
        hosts = {report.machine.network.host for report in partition.reports}
        reached = {(route.source, route.target) for route in partition.routes if route.is_open}
        assert len(hosts) == 2 and {("head", host) for host in hosts} < reached
        assert {(one, other) for one in hosts for other in hosts if one != other} < reached
    said = {one["what"]: one["where"] for one in found["findings"]}
    assert set(said["a job that asks for no memory gets 200 MiB"]) == ALL
    assert jobs() == "" and list((shared / "home/jobs").iterdir()) == []


def test_a_partition_that_gives_nothing_says_why_and_the_others_are_seen(execute, shared):
    subprocess.check_call(["scontrol", "update", "partitionname=high", "state=DOWN"])
    try:
        done = execute("--partition", "high", "--partition", "low")
    finally:
        subprocess.check_call(["scontrol", "update", "partitionname=high", "state=UP"])
    assert done.returncode == 0, done.stderr
    kept = partitions_of(shared)
    assert {name: one.outcome for name, one in kept.items()} == {"high": "refused", "low": "seen"}
    assert "high: nothing is known of its nodes: its state is DOWN" in done.stdout
    assert execute("--partition", "nope").returncode == 2


def test_a_job_that_does_not_start_in_time_is_cancelled_with_its_reason(execute, shared, no_node_is_free):
    done = execute("--partition", "cpu", "--patience", "3")
    assert done.returncode == 0, done.stderr
    (partition,) = partitions_of(shared).values()
    assert partition.outcome == "waited" and "did not start within 3 s; Slurm's reason: " in partition.reason
    assert "Reserved" in partition.reason
    assert jobs() == ""


def test_an_interrupt_cancels_the_jobs(sandbox, ordinary_user, environment, no_node_is_free, interruptible):
    command = sandbox.argv_as(ordinary_user, [*DOCTOR, "--partition", "cpu"], environment)
    doctor = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    eventually(lambda: jobs() != "")
    doctor.send_signal(signal.SIGINT)
    said, _ = doctor.communicate(timeout=60)
    assert doctor.returncode != 0 and "Traceback" not in said
    eventually(lambda: jobs() == "")


def test_nodes_that_do_not_see_the_home_are_told(execute, shared, sandbox):
    for name in ("n1", "n2", "n3", "n4"):
        inside = ["nsenter", f"--target={sandbox._machine(name)}", "--mount"]
        subprocess.check_call([*inside, "mount", "-t", "tmpfs", "none", str(shared)])
    try:
        done = execute("--partition", "cpu")
    finally:
        for name in ("n1", "n2", "n3", "n4"):
            subprocess.check_call(["nsenter", f"--target={sandbox._machine(name)}", "--mount", "umount", str(shared)])
    assert done.returncode == 0, done.stderr
    (partition,) = partitions_of(shared).values()
    assert partition.outcome == "failed" and "do not see" in partition.reason, partition.reason
