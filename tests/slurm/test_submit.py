"""The batch script of a request, and what cannot be submitted."""

import functools
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from slurminfer.core.errors import RunDirectoryError, SlurmError, SubmissionUnclearError
from slurminfer.core.job import JobRequest
from slurminfer.core.processes.setup import watched
from slurminfer.slurm.submit import SlurmLauncher, available

FULL = """\
#!/bin/bash

# Parameters
#SBATCH --account=physics
#SBATCH --cpus-per-task=8
#SBATCH --distribution=block
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --job-name=demo-gpu-0
#SBATCH --mem=64G
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='/shared/two words/%j_0_log.out'
#SBATCH --partition=gpu
#SBATCH --qos=long
#SBATCH --requeue
#SBATCH --signal=USR2@60
#SBATCH --time=2

# setup
{setup}

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/shared/two words/%j_%t_log.out' --cpus-per-task=8 --export=ALL --kill-on-bad-exit=1 \
{python} -P -u -m submitit.core._submit '/shared/two words'
# /shared/two words/cpu-0.env, readable by you only:
#   export GREETING='it'"'"'s'
#   export HF_TOKEN='***'
"""


def request(**fields):
    entry = functools.partial(subprocess.check_call, ["true"])
    values = {"name": "demo", "role": "cpu-0", "entry": entry, "log_folder": Path("/shared/logs"), **fields}
    return JobRequest(**values)


def test_render_is_the_whole_batch_script():
    text = SlurmLauncher().render(
        request(
            name="demo-gpu-0",
            log_folder=Path("/shared/two words"),
            nodes=2,
            cpus_per_task=8,
            gpus_per_node=4,
            mem="64G",
            time_s=90,
            signal_s=60,
            partition="gpu",
            account="physics",
            setup=("module load cuda",),
            env={"GREETING": "it's", "HF_TOKEN": "hf_x"},
            slurm={"qos": "long", "exclusive": True, "contiguous": False},
        )
    )
    assert text == FULL.format(
        python=shlex.quote(sys.executable),
        setup="\n".join(watched(["module load cuda", ". '/shared/two words/cpu-0.env'"])),
    )


def test_render_leaves_to_the_cluster_what_is_not_asked_for():
    text = SlurmLauncher().render(request())
    for word in ("--mem", "--partition", "--account", "--gpus", "--wckey", "--kill-on-bad-exit", "--distribution"):
        assert word not in text


@pytest.mark.parametrize(("shortest", "line"), [(1801, "#SBATCH --time-min=31\n"), (7200, ""), (None, "")])
def test_slurm_may_shorten_a_job_that_says_so(shortest, line):
    text = SlurmLauncher().render(request(time_s=7200, time_min_s=shortest))
    assert "#SBATCH --time=120\n" in text
    assert line in text and ("--time-min" in text) == bool(line)


def test_no_requeue_replaces_requeue():
    text = SlurmLauncher().render(request(slurm={"no_requeue": True}))
    assert "#SBATCH --no-requeue\n" in text
    assert "#SBATCH --requeue\n" not in text


def test_where_ranks_are_placed_is_for_the_user_to_say_otherwise():
    text = SlurmLauncher().render(request(nodes=4, slurm={"distribution": "cyclic", "switches": "1@00:10:00"}))
    assert "#SBATCH --distribution=cyclic\n" in text
    assert "#SBATCH --distribution=block\n" not in text
    assert "#SBATCH --switches=1@00:10:00\n" in text
    assert "--kill-on-bad-exit=1" in text


@pytest.mark.parametrize("folder", ["/shared/100%j", "/shared/two\nlines", "/shared/back\\slash"])
def test_a_log_folder_that_slurm_would_misread_is_refused(folder):
    with pytest.raises(SlurmError, match="log folder"):
        SlurmLauncher().render(request(log_folder=Path(folder)))


def test_a_variable_that_no_shell_can_export_is_refused():
    with pytest.raises(SlurmError, match="'A-B' is not a name"):
        SlurmLauncher().render(request(env={"A-B": "1"}))


def test_without_slurm_submission_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not available()
    with pytest.raises(SlurmError, match="no Slurm here: sbatch is not on PATH"):
        SlurmLauncher().submit(request(log_folder=tmp_path / "logs"))
    with pytest.raises(SlurmError, match="no Slurm here: scancel is not on PATH"):
        SlurmLauncher().cancel(["1"])


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A `sbatch` that notes its umask and the script in `tmp_path`."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin/sbatch"
    sbatch.write_text(f'#!/bin/sh\numask > {tmp_path}/umask\ncp "$1" {tmp_path}/script\necho Submitted batch job 7\n')
    sbatch.chmod(0o755)
    return tmp_path


def test_all_that_is_left_of_a_submission_is_closed_to_others(recorded):
    before = os.umask(0o002)
    try:
        assert SlurmLauncher().submit(request(log_folder=recorded / "logs", env={"HF_TOKEN": "hf_'x"})) == "7"
    finally:
        os.umask(before)
    assert (recorded / "umask").read_text().strip() == "0077"
    for path in ((recorded / "logs"), *(recorded / "logs").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert {path.suffix for path in (recorded / "logs").iterdir()} == {".env", ".pkl", ".sh"}


def test_variables_reach_the_job_through_a_file(recorded):
    SlurmLauncher().submit(request(log_folder=recorded / "logs", env={"HF_TOKEN": "hf_'x\n$(ls)"}))
    script = (recorded / "script").read_text()
    assert "hf_" not in script
    [line] = [line for line in script.splitlines() if line.startswith(". ")]
    said = subprocess.run(["sh", "-c", f'{line}; printf %s "$HF_TOKEN"'], capture_output=True, check=True).stdout
    assert said == b"hf_'x\n$(ls)"


def test_an_sbatch_that_does_not_answer_is_ended(recorded, monkeypatch):
    (recorded / "bin/sbatch").write_text("#!/bin/sh\nwhile :; do :; done\n")
    monkeypatch.setattr("slurminfer.slurm.submit._SBATCH_S", 0.1)
    with pytest.raises(SubmissionUnclearError, match=r"gave no answer for job 'demo' within 0.1 s.*squeue --me"):
        SlurmLauncher().submit(request(log_folder=recorded / "logs"))


@pytest.mark.parametrize("answer", ["", "Submitted", "<html>"])
def test_an_answer_without_a_job_leaves_open_whether_there_is_one(recorded, answer):
    (recorded / "bin/sbatch").write_text(f"#!/bin/sh\necho '{answer}'\n")
    with pytest.raises(SubmissionUnclearError, match=r"did not say the id of job 'demo'.*squeue --me"):
        SlurmLauncher().submit(request(log_folder=recorded / "logs"))
    assert list((recorded / "logs").iterdir()) == []


def test_of_jobs_of_one_name_those_of_the_same_log_folder_are_found(recorded):
    logs = recorded / "logs"
    squeue = recorded / "bin/squeue"
    rows = [f"7|{logs}/.submission_file_1.sh", "8|/other/logs/.submission_file_2.sh", "9|(null)", "10|"]
    squeue.write_text("#!/bin/sh\n" + "".join(f"echo '{row}'\n" for row in rows))
    squeue.chmod(0o755)
    assert SlurmLauncher().find(request(log_folder=logs)) == ["7"]


def test_a_job_without_its_entry_is_not_whole(recorded):
    asked = request(log_folder=recorded / "logs")
    job = SlurmLauncher().submit(asked)
    assert SlurmLauncher().is_whole(asked, job) and not SlurmLauncher().is_whole(asked, "8")


def test_a_refusal_says_what_to_change(recorded):
    (recorded / "bin/sbatch").write_text("#!/bin/sh\necho 'sbatch: error: Invalid qos specification' >&2\nexit 1\n")
    with pytest.raises(SlurmError, match=r"Invalid qos specification. What to change: slurm = {qos"):
        SlurmLauncher().submit(request(log_folder=recorded / "logs"))
    assert list((recorded / "logs").iterdir()) == []  # nothing of it is left


@pytest.mark.slurm
def test_the_sandbox_is_available():
    assert available()


@pytest.mark.slurm
def test_an_unknown_partition_is_refused_with_the_valid_ones(tmp_path, capfd):
    with pytest.raises(SlurmError) as caught:
        SlurmLauncher().submit(request(log_folder=tmp_path, partition="nope"))
    assert "job 'demo': invalid partition specified: nope" in str(caught.value)
    assert "(partitions here: cpu, gpu, low, high)" in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gpus_per_node": 99}, "Requested node configuration is not available"),
        ({"slurm": {"frobnicate": True}}, "unrecognized option '--frobnicate'"),
        ({"mem": "9999T"}, "Memory specification can not be satisfied"),
    ],
)
def test_a_refusal_has_slurms_own_words(tmp_path, fields, words):
    with pytest.raises(SlurmError, match=words):
        SlurmLauncher().submit(request(log_folder=tmp_path, **fields))


@pytest.mark.slurm
def test_a_log_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match=r"cannot make .*/file/logs: Not a directory"):
        SlurmLauncher().submit(request(log_folder=tmp_path / "file/logs"))
