"""Drivers as Slurm jobs: what is submitted and kept, that it happens once, and how it is ended."""

import stat
from pathlib import Path

import pytest
from msgspec import structs

from slurminfer.core.errors import BatchError, SlurmError, SlurminferError, UsageError
from slurminfer.core.job import JobPhase
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.job import JobSpec
from slurminfer.jobs.batch.batch import Batch, EndpointChoice, encode_batch
from slurminfer.jobs.batch.commands import cancel as cancel_command
from slurminfer.jobs.batch.endpoints.served import OwnDeployments
from slurminfer.jobs.batch.ledger.folder import read_parameters
from slurminfer.jobs.batch.outputs.export import OutputOptions
from slurminfer.jobs.batch.parameters import Parameters
from slurminfer.jobs.batch.submit.entry import KEY, DriverEntry
from slurminfer.jobs.batch.submit.folder import JobsFolder
from slurminfer.jobs.batch.submit.job import living_drivers, request, submit
from slurminfer.jobs.batch.submit.view import lines, look_at_jobs
from slurminfer.slurm.submit import SlurmLauncher

from ....support.launchers import ObedientJobTable

SECRET = "sk-very-secret"


class Jobs(ObedientJobTable):
    """Jobs that end when they are cancelled; of an array each is known by itself."""

    def submit(self, request):
        job = super().submit(request)
        for number in range(request.array) if request.array > 1 else ():
            self.set(f"{job}_{number}", JobPhase.PENDING)
        return job

    def find(self, request):
        return [job for job in super().find(request) if self.jobs[job].phase.is_living]


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    table = Jobs()
    monkeypatch.setattr(cancel_command, "launcher_named", lambda name: table)
    return table


@pytest.fixture
def batch(tmp_path):
    return Batch(
        inputs=("/in.jsonl",),
        output=OutputOptions(path=tmp_path / "out put.jsonl"),
        endpoint=EndpointChoice(url="http://127.0.0.1:1/v1"),
    )


@pytest.fixture
def folder(batch):
    return JobsFolder(batch.output.path)


def start(jobs, batch, drivers=1):
    return submit(request(batch, JobSpec(), drivers), batch, jobs)


def test_a_driver_is_a_small_job_that_is_told_before_its_limit(batch, folder):
    job = request(batch, JobSpec(partition="cpu", mem="2G", time="30", slurm={"qos": "long"}))
    assert (job.name, job.cpus_per_task, job.nodes, job.gpus_per_node) == ("batch-out-put.jsonl", 1, 1, 0)
    assert (job.partition, job.mem, job.time_s, job.signal_s) == ("cpu", "2G", 1800, 60)
    assert job.slurm == {"qos": "long"} and job.log_folder == folder.path and job.array == 1


def test_the_key_stands_in_a_file_of_its_own_and_in_nothing_that_others_see(batch, tmp_path):
    job = request(batch, JobSpec(), key=SECRET)
    shown = SlurmLauncher().render(job)
    assert job.env == {KEY: SECRET} and SECRET not in shown and f"{KEY}='***'" in shown.replace("=***", "='***'")
    assert SECRET not in " ".join(job.entry.argv()) and SECRET not in encode_batch(batch)
    named = Batch(inputs=batch.inputs, output=batch.output, endpoint=EndpointChoice(run="demo"))
    assert request(named, JobSpec(), key=SECRET).env == {}, "a deployment's key is in its own directory"


def test_an_array_is_one(batch):
    assert "#SBATCH --array=0-3%4" in SlurmLauncher().render(request(batch, JobSpec(), 4))
    assert "--array" not in SlurmLauncher().render(request(batch, JobSpec(), 1))


def test_what_is_to_be_done_lies_beside_the_output_for_its_owner_alone(jobs, batch, folder):
    start(jobs, batch)
    assert encode_batch(folder.read_batch()) == encode_batch(batch)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.path.iterdir() if path.is_file())


def test_an_output_has_one_submission_at_a_time(jobs, batch, folder):
    assert start(jobs, batch).ids == ("1",)
    with pytest.raises(BatchError, match=r"job 1 works on .* already: 'slurminfer batch status .* 'slurminfer batch c"):
        start(jobs, batch)
    jobs.set("1", JobPhase.RUNNING)
    with pytest.raises(BatchError, match="job 1 works on"):
        start(jobs, batch)
    jobs.set("1", JobPhase.FAILED)
    assert start(jobs, batch, 2).ids == ("2_0", "2_1")
    jobs.set("2_0", JobPhase.DONE)
    with pytest.raises(BatchError, match="job 2_1 works on"):
        start(jobs, batch)


def test_so_it_is_while_another_command_submits(jobs, batch, folder):
    with folder.one_at_a_time(), pytest.raises(BatchError, match="another command is submitting"):
        start(jobs, batch)
    assert jobs.requests == {}


def test_other_parameters_than_those_of_the_ledger_are_refused_and_what_was_asked_before_is_kept(jobs, batch, folder):
    folder.write_batch(batch, of_jobs=False)
    read_parameters(folder.ledger, batch.parameters)
    segments = folder.ledger / "0/segments"
    segments.mkdir(parents=True)
    (segments / "00000.a.jsonl").write_text("a result")
    other = structs.replace(batch, parameters=Parameters(model="other"))
    with pytest.raises(BatchError, match='is of other parameters: model was null, is "other" now'):
        start(jobs, other)
    with pytest.raises(BatchError, match="ask as before, choose another output"):
        folder.write_batch(other, of_jobs=False)
    assert jobs.requests == {} and encode_batch(folder.read_latest()) == encode_batch(batch)
    assert start(jobs, batch).id == "1"


def test_a_job_that_nobody_lived_to_note_is_known_all_the_same(jobs, batch, folder):
    jobs.dies = MemoryError
    with pytest.raises(MemoryError):
        start(jobs, batch)
    assert folder.read_jobs() is None
    assert [job.id for job in living_drivers(folder, jobs)] == ["1"]
    with pytest.raises(BatchError, match="job 1 works on"):
        start(jobs, batch)


def test_a_refusal_leaves_room_for_the_next_attempt(jobs, batch, folder):
    jobs.refusal = SlurmError("no such partition")
    with pytest.raises(SlurmError, match="no such partition"):
        start(jobs, batch)
    jobs.refusal = None
    assert start(jobs, batch).id == "1"


def test_cancel_ends_what_lives_and_says_what_that_was(jobs, batch, folder, capsys):
    start(jobs, batch, 3)
    jobs.set("1_0", JobPhase.DONE)
    jobs.set("1_1", JobPhase.RUNNING)
    jobs.set("1", JobPhase.DONE)  # no job has the array's own number alone
    cancel_command.cancel(batch.output.path)
    told = capsys.readouterr().out
    assert jobs.cancelled == ["1_1", "1_2"]
    assert "driver job 1_1 cancelled\ndriver job 1_2 cancelled\n" in told and "1_0" not in told
    assert "is kept in" in told and folder.ledger.is_dir()
    cancel_command.cancel(batch.output.path)
    assert "was running" in capsys.readouterr().out and jobs.cancelled == ["1_1", "1_2"]


def test_cancel_ends_the_deployment_even_where_the_drivers_cannot_be_asked_for(
    jobs, batch, folder, monkeypatch, capsys
):
    start(jobs, batch)
    jobs.is_away = True
    lives = [RunDirectory(Path("/runs/own"))]
    monkeypatch.setattr(OwnDeployments, "living", lambda self: list(lives))
    monkeypatch.setattr(OwnDeployments, "stop", lambda self: lives.clear())
    with pytest.raises(SlurminferError, match="squeue: no answer"):
        cancel_command.cancel(batch.output.path)
    assert "deployment 'own' stopped" in capsys.readouterr().out


def test_cancel_of_an_output_that_no_batch_has_written(tmp_path):
    with pytest.raises(BatchError, match=r"out\.ledger is not there: no batch has written this output"):
        cancel_command.cancel(tmp_path / "out")


def test_a_batch_that_was_never_submitted_needs_no_slurm_to_be_cancelled(folder, monkeypatch, capsys):
    folder.ledger.mkdir()
    monkeypatch.setattr(cancel_command, "launcher_named", lambda name: pytest.fail("asked for Slurm"))
    cancel_command.cancel(folder.output)
    assert "was running" in capsys.readouterr().out


def test_a_failed_job_is_shown_with_what_its_log_says(jobs, batch, folder):
    start(jobs, batch)
    jobs.set("1", JobPhase.FAILED, "FAILED", reason="exit code 1")
    (folder.path / "1_0_log.out").write_text("slurminfer.core.errors.BatchError: the disk is full\n", encoding="utf-8")
    (job,) = look_at_jobs(folder, jobs)
    assert "exit code 1" in job.reason and "the disk is full" in job.reason and not job.is_living
    assert next(iter(lines([job]))).startswith("Slurm job 1 FAILED: exit code 1")
    jobs.is_away = True
    assert look_at_jobs(folder, jobs)[0].state == "UNKNOWN"


def test_a_driver_that_finds_nothing_to_do_says_so(tmp_path):
    with pytest.raises(BatchError, match="nothing was submitted"):
        DriverEntry(tmp_path / "out")()


def test_usage_of_local_workers_with_a_job(batch):
    with pytest.raises(UsageError):
        EndpointChoice(local=True, run="x")
