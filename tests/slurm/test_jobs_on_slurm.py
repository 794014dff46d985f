"""Jobs of an ordinary user on a real Slurm, from submission to their end."""

import subprocess
import sys
from typing import Any

import pytest

from slurminfer.core.job import JobPhase, JobRequest
from slurminfer.slurm.accounting import JobRun, runs_of
from slurminfer.slurm.observe import observe
from slurminfer.slurm.submit import SlurmLauncher

from ..support.waiting import eventually
from .conftest import submit_argv, wait_for

pytestmark = pytest.mark.slurm

ALL_REDUCE = """
import os, sys, torch, torch.distributed as dist
dist.init_process_group("gloo", f"file://{sys.argv[1]}/store", rank=int(os.environ["SLURM_PROCID"]), world_size=2)
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
print("sum", total.item(), "on", os.uname().nodename, flush=True)
dist.destroy_process_group()
"""


NO_ENTRY: Any = None


def shell(script):
    return ["sh", "-c", script]


def test_a_job_is_seen_pending_running_and_done(submit, shared):
    job = submit(shell(f"until [ -e '{shared}/go' ]; do sleep 0.1; done"), shared / "logs", slurm={"hold": True})
    assert wait_for(job, JobPhase.PENDING).reason == "JobHeldUser"
    subprocess.check_call(["scontrol", "release", job])
    running = wait_for(job, JobPhase.RUNNING)
    assert running.node in {"n1", "n2", "n3", "n4"}
    (shared / "go").touch()
    assert wait_for(job, JobPhase.DONE).state == "COMPLETED"


def test_a_job_that_fails_tells_how(submit, shared):
    job = submit(shell("exit 3"), shared / "logs")
    ended = wait_for(job, JobPhase.FAILED)
    assert (ended.state, ended.reason) == ("FAILED", "NonZeroExitCode")
    assert "non-zero exit status 3" in (shared / f"logs/{job}_0_log.out").read_text()


def test_a_job_is_found_by_its_name_and_its_log_folder(submit, shared, monkeypatch):
    folders = [shared / "logs", shared / "two | words"]
    jobs = [submit(["true"], folder, slurm={"hold": True}) for folder in folders]
    monkeypatch.setattr("os.getuid", lambda: shared.stat().st_uid)
    for job, folder in zip(jobs, folders, strict=True):
        asked = JobRequest(name="test", role="test", entry=NO_ENTRY, log_folder=folder)
        assert SlurmLauncher().find(asked) == [job] and SlurmLauncher().is_whole(asked, job)
    SlurmLauncher().cancel(jobs)


def test_an_array_is_one_submission_of_several_jobs(submit, shared, monkeypatch):
    job = submit(["true"], shared / "logs", array=2, slurm={"hold": True})
    monkeypatch.setattr("os.getuid", lambda: shared.stat().st_uid)
    asked = JobRequest(name="test", role="test", entry=NO_ENTRY, log_folder=shared / "logs", array=2)
    assert SlurmLauncher().find(asked) == [job] and SlurmLauncher().is_whole(asked, job)
    ids = [f"{job}_0", f"{job}_1"]
    assert {status.phase for status in observe(ids).values()} == {JobPhase.PENDING}
    subprocess.check_call(["scontrol", "release", job])
    assert [wait_for(each, JobPhase.DONE).state for each in ids] == ["COMPLETED"] * 2


def test_cancel_ends_jobs_and_forgives_ended_and_unknown_ones(submit, shared):
    job = submit(["sleep", "300"], shared / "logs")
    SlurmLauncher().cancel(["999999", job])
    assert wait_for(job, JobPhase.FAILED).state == "CANCELLED"
    SlurmLauncher().cancel([job])
    SlurmLauncher().cancel(["999999"])


def test_accounting_tells_what_a_job_has_used(submit, shared):
    job = submit(["sleep", "1"], shared / "logs", cpus_per_task=3)
    wait_for(job, JobPhase.DONE)

    def ended_runs() -> list[JobRun]:  # accounting learns of the end a little later
        return [run for run in runs_of([job, "999999"], shared.stat().st_uid).get(job, []) if run.ended_at is not None]

    (run,) = eventually(ended_runs)
    assert run.cpus >= 3 and (run.nodes, run.gpus, run.energy_j) == (1, 0, None)
    assert run.started_at is not None and run.ended_at == run.started_at + run.elapsed_s
    assert run.account  # the partition is empty here where the job has named none


def test_states_are_seen_without_accounting(submit, shared, tmp_path, monkeypatch):
    job = submit(["true"], shared / "logs")
    (tmp_path / "squeue").symlink_to("/usr/bin/squeue")
    monkeypatch.setenv("PATH", str(tmp_path))
    wait_for(job, JobPhase.DONE)
    assert observe([job, "999999"])["999999"].phase is JobPhase.UNKNOWN


def test_the_log_folder_may_have_any_name(submit, shared):
    folder = shared / """it's "quoted" $HOME; é 漢 & *"""
    job = submit(["echo", "seen"], folder)
    wait_for(job, JobPhase.DONE)
    assert "seen" in (folder / f"{job}_0_log.out").read_text()


def test_environment_and_setup_reach_the_job(submit, shared):
    fields = {"setup": ["SET=up", "export SET"], "env": {"VALUE": "two 'words' $HOME"}}
    job = submit(shell('echo "<$SET> <$VALUE> <$SLURM_CPUS_PER_TASK>"'), shared / "logs", cpus_per_task=3, **fields)
    wait_for(job, JobPhase.DONE)
    assert "<up> <two 'words' $HOME> <3>" in (shared / f"logs/{job}_0_log.out").read_text()


def test_where_a_site_exports_nothing_the_task_has_its_environment_all_the_same(submit, shared):
    fields = {"setup": ["export SET=up"], "env": {"VALUE": "mine"}, "slurm": {"export": "NONE"}}
    job = submit(shell('echo "<$SET> <$VALUE>"'), shared / "logs", **fields)
    wait_for(job, JobPhase.DONE)
    assert "<up> <mine>" in (shared / f"logs/{job}_0_log.out").read_text()


def test_what_a_job_leaves_is_its_users_alone_and_its_script_has_no_secret(submit, shared):
    fields = {"env": {"HF_TOKEN": "hf_secret"}, "slurm": {"hold": True}}
    job = submit(shell(f"umask; touch {shared}/logs/made"), shared / "logs", **fields)
    shown = subprocess.check_output(["scontrol", "write", "batch_script", job, "-"], encoding="utf-8")
    assert "hf_secret" not in shown and "test.env" in shown
    subprocess.check_call(["scontrol", "release", job])
    wait_for(job, JobPhase.DONE)
    left = {path.name: oct(path.stat().st_mode & 0o777) for path in (shared / "logs").iterdir()}
    assert {f"{job}_0_log.out", "made", "test.env"} <= left.keys()
    assert set(left.values()) <= {"0o600", "0o700"}, left
    assert (shared / "logs").stat().st_mode & 0o777 == 0o700


def test_two_nodes_get_one_task_each_and_can_reduce(submit, shared):
    job = submit([sys.executable, "-c", ALL_REDUCE, str(shared)], shared / "logs", nodes=2)
    wait_for(job, JobPhase.DONE, timeout_s=90)
    lines = [(shared / f"logs/{job}_{rank}_log.out").read_text() for rank in (0, 1)]
    hosts = {line.split("sum 3.0 on ")[1].split()[0] for line in lines}
    assert len(hosts) == 2


def test_a_job_submitted_inside_a_job_inherits_nothing_of_it(submit, shared):
    inner = submit_argv(shell("echo partition $SLURM_JOB_PARTITION tasks $SLURM_NTASKS"), shared / "inner")
    outer = submit(inner, shared / "outer", cpus_per_task=4, env={"SBATCH_PARTITION": "low", "SBATCH_JOB_NAME": "leak"})
    wait_for(outer, JobPhase.DONE)
    job = next(path.name.split("_")[0] for path in (shared / "inner").glob("*_submission.sh"))
    wait_for(job, JobPhase.DONE)
    assert "partition cpu tasks 1" in (shared / f"inner/{job}_0_log.out").read_text()


def test_a_requeued_job_keeps_its_id_and_its_log_and_counts(submit, shared):
    job = submit(shell("echo run ${SLURM_RESTART_COUNT:-0}; sleep 300"), shared / "logs")
    log = shared / f"logs/{job}_0_log.out"
    eventually(lambda: log.exists() and "run 0" in log.read_text())
    subprocess.check_call(["scontrol", "requeue", job])
    eventually(lambda: "run 1" in log.read_text())
    assert "run 0" in log.read_text()
    assert observe([job])[job].phase is JobPhase.RUNNING
    SlurmLauncher().cancel([job])


def test_a_node_without_power_fails_its_job(sandbox, submit, shared):
    job = submit(["sleep", "300"], shared / "logs", slurm={"nodelist": "n4", "no-requeue": True})
    wait_for(job, JobPhase.RUNNING)
    sandbox.node_off("n4")
    assert wait_for(job, JobPhase.FAILED).state == "NODE_FAIL"
    assert sandbox.status().nodes["n4"] == "off"
    sandbox.node_up("n4")
    assert sandbox.status().state == "running"
