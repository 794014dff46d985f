"""Jobs as processes of this machine."""

import os
import signal
import stat
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from slurminfer.core.errors import RunDirectoryError, SpecError
from slurminfer.core.job import JobPhase, JobRequest
from slurminfer.jobs.launch.launchers import launcher_named
from slurminfer.jobs.launch.local import LocalLauncher

from ...support.waiting import eventually

pytestmark = pytest.mark.process


@dataclass(frozen=True)
class Command:
    """An entry that is only a command line."""

    words: tuple[str, ...]

    def __call__(self):
        raise NotImplementedError("local jobs are started by their command line")

    def argv(self):
        return self.words


def request(tmp_path, code: str, **changes) -> JobRequest:
    entry = Command((sys.executable, "-c", code))
    return JobRequest(**{"name": "test", "role": "cpu-0", "entry": entry, "log_folder": tmp_path / "logs", **changes})


def is_done(job: str) -> bool:
    return phase(job) is JobPhase.DONE


def phase(job: str) -> JobPhase:
    return LocalLauncher().observe([job])[job].phase


def test_a_job_runs_in_a_session_of_its_own_and_is_seen_to_end(tmp_path):
    job = LocalLauncher().submit(request(tmp_path, "import time; time.sleep(60)"))
    assert phase(job) is JobPhase.RUNNING
    assert os.getsid(int(job.partition("@")[0])) != os.getsid(0)
    LocalLauncher().cancel([job])
    eventually(lambda: phase(job) is JobPhase.DONE)


def test_output_environment_and_setup_reach_the_log(tmp_path):
    code = "import os; print(os.environ['ASKED'], os.environ['SET_UP'], os.environ['SLURMINFER_LOCAL'])"
    job = LocalLauncher().submit(request(tmp_path, code, env={"ASKED": "a b"}, setup=("export SET_UP='c d'",)))
    eventually(lambda: phase(job) is JobPhase.DONE)
    assert (tmp_path / "logs/process.log").read_text() == "a b c d 1\n"


def test_a_reused_pid_is_not_mistaken_for_the_job(tmp_path):
    job = LocalLauncher().submit(request(tmp_path, "import time; time.sleep(60)"))
    pid, _, started = job.partition("@")
    ticks, _, boot = started.partition("-")
    assert phase(f"{pid}@{int(ticks) - 1}-{boot}") is JobPhase.DONE
    assert phase(f"{pid}@{ticks}-{'f' * 8}") is JobPhase.DONE, "of before the machine was restarted"
    LocalLauncher().kill([job])
    eventually(lambda: phase(job) is JobPhase.DONE)


def test_what_ignores_the_cancel_can_be_killed(tmp_path):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    job = LocalLauncher().submit(request(tmp_path, code))
    eventually(lambda: (tmp_path / "logs/process.log").read_text() == "up\n")
    LocalLauncher().cancel([job])
    assert phase(job) is JobPhase.RUNNING
    LocalLauncher().kill([job])
    eventually(lambda: phase(job) is JobPhase.DONE)


def test_each_job_of_a_role_has_a_log_of_its_own(tmp_path):
    for word in ("first", "second", "third"):
        job = LocalLauncher().submit(request(tmp_path, f"print({word!r})"))
        eventually(partial(is_done, job))
    said = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert said == {"process.1.log": "first\n", "process.2.log": "second\n", "process.log": "third\n"}


def test_what_a_job_writes_is_for_its_owner_alone(tmp_path):
    code = "from pathlib import Path; Path('made').mkdir(); Path('made/file').touch(); print('x')"
    job = LocalLauncher().submit(request(tmp_path, f"import os; os.chdir({str(tmp_path)!r}); {code}"))
    eventually(lambda: phase(job) is JobPhase.DONE)
    written = ("logs", "logs/process.log", "made", "made/file")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in written] == [0o700, 0o600, 0o700, 0o600]


def test_a_rendered_command_has_no_secrets(tmp_path):
    text = LocalLauncher().render(request(tmp_path, "", env={"HF_TOKEN": "hf_x", "NCCL_DEBUG": "INFO"}))
    assert "HF_TOKEN=*** NCCL_DEBUG=INFO" in text


def test_cancelling_what_has_ended_is_no_error(tmp_path):
    LocalLauncher().cancel(["999999@1.00", f"{os.getpid()}@1.00"])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_more_than_one_node_needs_slurm(tmp_path):
    with pytest.raises(SpecError, match="needs Slurm"):
        LocalLauncher().submit(request(tmp_path, "", nodes=2))


@pytest.mark.parametrize("job", ["x", "", "-1@1", "7@soon"])
def test_an_id_that_no_local_job_can_have_is_named(job):
    with pytest.raises(RunDirectoryError, match="expected PID@TICKS-BOOT"):
        LocalLauncher().observe([job])


def test_a_launcher_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(RunDirectoryError, match="'lokal': expected 'slurm' or 'local'"):
        launcher_named("lokal")


def test_setup_lines_are_not_in_the_process_list(tmp_path):
    setup = ("export DB_PASS=of-the-owner", "read -r _ < pipe")  # which waits
    os.mkfifo(tmp_path / "pipe")
    job = LocalLauncher().submit(request(tmp_path, "", setup=(f"cd {tmp_path}", *setup)))
    command = Path(f"/proc/{job.partition('@')[0]}/cmdline")
    eventually(lambda: b"bash" in command.read_bytes())
    assert b"of-the-owner" not in command.read_bytes()
    (tmp_path / "pipe").write_text("go on\n")  # waits for the reader
    eventually(lambda: phase(job) is JobPhase.DONE)


def test_setup_lines_that_a_program_has_run_are_not_in_its_environment(tmp_path):
    code = "import os; print([name for name in os.environ if 'setup' in name.lower()], os.environ['X'])"
    job = LocalLauncher().submit(request(tmp_path, code, setup=("X=$(cat <<Y", "a", "Y", ")", "export X")))
    eventually(lambda: phase(job) is JobPhase.DONE)
    assert (tmp_path / "logs/process.log").read_text() == "[] a\n"
