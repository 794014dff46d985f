"""`slurminfer quantize` as a command: what it refuses, what it submits, which share of the work a task has."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slurminfer.cli import app
from slurminfer.core import files
from slurminfer.core.errors import SlurmError, SlurminferError, UsageError
from slurminfer.core.job import JobPhase
from slurminfer.core.spec.files import load_job
from slurminfer.jobs.evaluate.evaluate import default_windows
from slurminfer.jobs.launch import follow as following
from slurminfer.jobs.quantize import job as module
from slurminfer.jobs.quantize.job import QuantizeEntry, follow, part_here, request, run, submit
from slurminfer.quant.awq.options import AwqOptions
from slurminfer.quant.awq.workspace import WorkShare, Workspace
from slurminfer.quant.progress import silent

from ...support.launchers import FakeLauncher

pytestmark = pytest.mark.process

EXAMPLE = Path(__file__).parents[3] / "examples/quantize.toml"


def command(*words):
    argv = [sys.executable, "-m", "slurminfer", "quantize", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True)


@pytest.fixture
def entry(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    return QuantizeEntry(model=tmp_path / "model", out=tmp_path / "out", options=AwqOptions(group_size=64))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--group-size", "48"], "group_size = 48: expected one of 32, 64, 128"),
        (["--device", "tpu"], "device = 'tpu': expected one of auto, cpu, cuda"),
        (["--backend", "gptq"], "backend = 'gptq': expected one of native, autoawq"),
        (["--samples", "0"], "samples = 0: expected at least 1"),
        (["--windows", "2"], "--text and --windows say how to --evaluate: give that too, or leave them out"),
        (["--dry-run"], "--dry-run prints a job: name its file with --spec"),
    ],
)
def test_wrong_usage_is_named(tmp_path, words, complaint):
    error = CliRunner().invoke(app, ["quantize", "demo", str(tmp_path / "out"), *words]).exception
    assert isinstance(error, UsageError) and str(error) == complaint


def test_wrong_usage_exits_with_2(tmp_path):
    done = command("demo", tmp_path / "out", "--samples", "0")
    assert (done.returncode, done.stderr) == (2, "error: samples = 0: expected at least 1\n")


def refusal(*words: object) -> str:
    """Why the command does not begin; it exits with 1 then."""
    error = CliRunner().invoke(app, ["quantize", *map(str, words)]).exception
    assert isinstance(error, SlurminferError) and not isinstance(error, UsageError)
    return str(error)


def test_a_model_that_is_not_there(tmp_path):
    assert "is not there; expected a model directory" in refusal(tmp_path / "nothing", tmp_path / "out")


def test_an_output_that_is_there(tmp_path):
    assert refusal("demo", tmp_path) == f"{tmp_path} exists already: remove it, or choose another name"


@pytest.mark.parametrize(
    ("environ", "part"),
    [
        ({}, WorkShare(0, 1)),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, WorkShare(0, 1)),  # sbatch's own shell
        ({"SLURM_STEP_ID": "4294967291", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, WorkShare(0, 1)),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, WorkShare(3, 4)),
    ],
)
def test_the_tasks_of_a_step_share_the_work(environ, part):
    assert part_here(environ) == part


def test_a_job_that_comes_back_when_all_is_done_ends_well(entry):
    entry.out.mkdir()
    Workspace(entry.out).path.mkdir()
    entry()
    assert list(entry.out.iterdir()) == [] and not Workspace(entry.out).path.exists()


def test_the_job_is_what_the_spec_says(entry):
    job = request(entry, load_job(EXAMPLE))
    assert (job.name, job.nodes, job.cpus_per_task, job.partition, job.mem) == ("quantize-out", 2, 1, "cpu", "4G")
    assert job.time_s == 3600 and job.signal_s == 60
    assert not job.log_folder.is_relative_to(entry.out)


def test_a_command_line_says_the_same_as_the_entry(entry):
    words = entry.argv()
    assert words[1:7] == ["-P", "-m", "slurminfer", "quantize", str(entry.model), str(entry.out)]
    assert {"--group-size=64", "--calibration=c4", "--samples=128", "--backend=native"} <= set(words)
    evaluated = replace(entry, evaluate_on="tiny", windows=3).argv()
    assert evaluated == [*words, "--evaluate", "--text=tiny", "--windows=3"]


def test_the_result_is_evaluated_as_long_as_was_asked_for(entry, monkeypatch):
    asked = []
    monkeypatch.setattr("slurminfer.jobs.evaluate.evaluate.evaluate", lambda *args, **how: asked.append(how))
    entry.out.mkdir()
    run(replace(entry, evaluate_on="tiny", windows=3), WorkShare(), silent)
    assert [(how["text"], how["windows"]) for how in asked] == [("tiny", 3)]
    assert (default_windows(2), default_windows(64)) == (4, 12)


def test_a_living_job_is_followed_instead_of_submitting_another(entry):
    spec = load_job(EXAMPLE)
    assert submit(entry, spec, FakeLauncher(JobPhase.PENDING)) == "1"
    again = FakeLauncher(JobPhase.RUNNING)
    assert submit(entry, spec, again) == "1" and again.submitted == []
    ended = FakeLauncher(JobPhase.FAILED)
    assert submit(entry, spec, ended) == "1" and len(ended.submitted) == 1


@pytest.fixture
def model(entry, monkeypatch):
    class Config:
        num_layers = 4

    monkeypatch.setattr(module, "read_config", lambda path: Config)
    monkeypatch.setattr(following, "_POLL_S", 0.0)
    monkeypatch.setattr(following, "_PATIENCE_S", 0.0)


def test_a_failed_job_says_why_and_where_its_logs_are(entry, model):
    launcher = FakeLauncher(JobPhase.PENDING, JobPhase.RUNNING, JobPhase.FAILED)
    job = submit(entry, load_job(EXAMPLE), launcher)
    (launcher.submitted[0].log_folder / f"{job}_1_log.out").write_text(
        "quantize 1/4\nslurminfer.core.errors.ModelError: no space left for out\nsrun: error: node n1\n"
    )
    with pytest.raises(SlurmError, match=r"ended as FAILED \(because\) without a result: .*no space left.*; logs in "):
        follow(job, entry, launcher, silent)


def test_a_job_that_nobody_remembers_is_not_waited_for_for_ever(entry, model):
    with pytest.raises(SlurmError, match="ended as UNKNOWN"):
        follow("7", entry, FakeLauncher(JobPhase.UNKNOWN), silent)


def test_a_finished_job_is_one_whose_output_is_there(entry, model):
    seen = []
    entry.out.mkdir()
    follow("7", entry, FakeLauncher(JobPhase.RUNNING, JobPhase.DONE), lambda *state: seen.append(state))
    assert seen[-1] == ("quantize", 4, 4)


def test_the_output_has_the_umask_of_whoever_asked_for_it(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "run", lambda *_: seen.append(files.current_umask()))
    before = os.umask(0o002)
    try:
        entry = QuantizeEntry(model=tmp_path / "model", out=tmp_path / "out", options=AwqOptions())
        with files.private_umask():  # as in a job of ours
            pickle.loads(pickle.dumps(entry))()
    finally:
        os.umask(before)
    assert seen == [0o002]
