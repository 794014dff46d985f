"""Jobs on Slurm, submitted through submitit's SlurmExecutor."""

import io
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env
from submitit.slurm.slurm import SlurmExecutor

from ..core import files
from ..core.errors import RunDirectoryError, SlurmError, SlurminferError, SubmissionUnclearError
from ..core.job import JobRequest, JobStatus, is_variable, shown_env
from ..core.processes.python import SAFE_PATH
from ..core.processes.setup import watched
from .client import access_environment, ask, own_words, require
from .forecast import Forecast, forecast
from .observe import observe
from .refusals import advice_on

# After so many timeouts submitit gives up to requeue a job. Serving goes on for as long as the user wants it.
_MAX_TIMEOUTS = 1_000_000_000
_SBATCH_S = 120  # a busy controller may take a minute
_ADVICE = "Job instance will not"  # how submitit goes on after it has quoted what it does not understand
_TIMED_OUT = 124  # the exit code of `timeout`


# What scancel says of jobs that have ended, that never were, or whose id is another user's job now.
_NOT_OURS_TO_CANCEL = ("already complet", "Invalid job id", "ermission denied")


class SlurmLauncher:
    """The `Launcher` of clusters. Each job runs `request.entry` once per node, under srun."""

    name = "slurm"

    def check(self, request: JobRequest) -> None:
        """Raise SlurmError for what no batch script can say."""
        if re.search(r"[%\n\\]", str(request.log_folder)):
            raise SlurmError(
                f"log folder {str(request.log_folder)!r}: Slurm cannot write below names with %, \\ or newline"
            )
        for name in request.env:
            if not is_variable(name):
                raise SlurmError(f"env: {name!r} is not a name that a shell can export")

    def submit(self, request: JobRequest) -> str:
        """Submit the job; its id. That of an array is the array's.

        Raises SlurmError where Slurm refuses, SubmissionUnclearError where it does not answer, RunDirectoryError for
        the log folder.

        The submission leaves out SLURM_*, SBATCH_* and SRUN_* of the own environment: inside a job they describe that
        job. The job inherits the rest, and a umask (which sbatch hands on) that makes its files this user's alone.
        """
        require("sbatch")
        self.check(request)
        before = set(_unsubmitted(request))
        files.make_directory(request.log_folder)
        files.close_to_others(request.log_folder)
        if request.env:
            files.write_atomic(_env_file(request), _exports(request.env))
        try:
            # submitit prints what it also raises
            with _clean_environment(), files.private_umask(), redirect_stderr(io.StringIO()):
                return _submitted(request)
        except (FailedJobError, FailedSubmissionError) as error:
            for path in set(_unsubmitted(request)) - before:
                path.unlink(missing_ok=True)
            raise _failure(request, error) from error
        except OSError as error:
            raise RunDirectoryError(f"cannot write {request.log_folder}: {error.strerror}") from error

    def render(self, request: JobRequest) -> str:
        """The batch script that `submit` would hand to sbatch, and the file of variables that it reads. Needs no Slurm.

        Values of variables with secret names are left out.
        """
        self.check(request)
        executor = _executor(request)
        if request.array > 1:
            executor.parameters["map_count"] = request.array
        script = str(executor._make_submission_file_text(executor._submitit_command_str, uid=""))
        if not request.env:
            return script
        exports = _exports(shown_env(request.env)).splitlines()
        return script + "\n".join(
            [f"# {_env_file(request)}, readable by you only:", *(f"#   {line}" for line in exports), ""]
        )

    def forecast(self, request: JobRequest, timeout_s: float | None = None) -> Forecast:
        """When Slurm would start the job if it were submitted now, or why not. Submits nothing.

        Raises SlurmError, also where Slurm does not answer within `timeout_s` seconds (default: a minute).
        """
        return forecast(self.render(request), timeout_s=timeout_s)

    def observe(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        """One status for every id. Raises SlurmError."""
        return observe(ids)

    def find(self, request: JobRequest) -> list[str]:
        """The ids of this user's jobs of that name and that log folder that wait or run. Raises SlurmError."""
        options = ["--noheader", "--all", f"--user={os.getuid()}", f"--name={request.name}", "--format=%F|%o"]
        rows = (line.split("|", 1) for line in ask(["squeue", *options]).splitlines() if "|" in line)
        found = (job for job, script in rows if Path(script.strip()).parent == request.log_folder)
        return list(dict.fromkeys(found))  # of an array there is a row for each job, and one number (%F) for all

    def is_whole(self, request: JobRequest, job_id: str) -> bool:
        """Whether the file with the job's entry was named after the job, as submitit does when sbatch has answered."""
        last = job_id if request.array == 1 else f"{job_id}_{request.array - 1}"
        return (request.log_folder / f"{last}_submitted.pkl").exists()

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel the jobs; those that have ended, never were or are another user's are no error. Raises SlurmError."""
        if not ids:
            return
        try:
            ask(["scancel", *ids])
        except SlurmError as error:
            complaints = str(error).removeprefix("scancel: ").split("; ")
            if not all(any(words in text for words in _NOT_OURS_TO_CANCEL) for text in complaints):
                raise

    def kill(self, ids: Sequence[str]) -> None:
        """Nothing to do: Slurm itself kills what has not ended KillWait seconds (slurm.conf) after `cancel`."""


def available() -> bool:
    """Whether jobs can be submitted from here: sbatch is on PATH and a slurmctld answers."""
    if not shutil.which("sbatch"):
        return False
    try:
        return " is UP" in ask(["scontrol", "ping"])
    except SlurmError:
        return False


class _Executor(SlurmExecutor):
    @classmethod
    def affinity(cls) -> int:
        """Usable anywhere: a script can be rendered where there is no srun."""
        return 1

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        """sbatch with a bound on its time, by the program of coreutils: submitit itself waits for ever."""
        return ["timeout", f"{_SBATCH_S}", *super()._make_submission_command(submission_file_path)]


def _submitted(request: JobRequest) -> str:
    """Submit the job, or the array of jobs; its id."""
    executor = _executor(request)
    if request.array == 1:
        return str(executor.submit(request.entry).job_id)
    with executor.batch():  # what is submitted in one batch becomes an array
        jobs = [executor.submit(request.entry) for _ in range(request.array)]
    return str(jobs[0].job_id).partition("_")[0]


def _executor(request: JobRequest) -> _Executor:
    """The request in submitit's terms."""
    python = f"{shlex.quote(sys.executable)} {SAFE_PATH}"
    executor = _Executor(folder=request.log_folder, max_num_timeout=_MAX_TIMEOUTS, python=python)
    executor.update_parameters(
        job_name=request.name,
        time=_minutes(request.time_s),
        nodes=request.nodes,
        ntasks_per_node=1,
        cpus_per_task=request.cpus_per_task,
        gpus_per_node=request.gpus_per_node or None,
        partition=request.partition,
        account=request.account,
        signal_delay_s=request.signal_s,
        setup=watched([*request.setup, *([f". {shlex.quote(str(_env_file(request)))}"] if request.env else [])]),
        srun_args=_srun_options(request),
        stderr_to_stdout=True,  # one log per task: a traceback stands beside the lines that led to it
        wckey=None,  # clusters that check it do not know submitit's
        additional_parameters=_sbatch_options(request),
    )
    return executor


def _srun_options(request: JobRequest) -> list[str]:
    # CPUs are not inherited from sbatch since Slurm 22.05. srun would take sbatch's --export for its own, and with NONE
    # the tasks would have nothing of what the script has set.
    options = [f"--cpus-per-task={request.cpus_per_task}", "--export=ALL"]
    if request.nodes > 1:
        options.append("--kill-on-bad-exit=1")  # an engine that has lost a rank only hangs
    return options


def _sbatch_options(request: JobRequest) -> dict[str, str | int | bool]:
    # submitit's own `mem` takes GB; this is Slurm's notation.
    own: dict[str, str | int | bool] = {"mem": request.mem} if request.mem else {}
    if request.time_min_s is not None and request.time_min_s < request.time_s:
        own["time-min"] = _minutes(request.time_min_s)
    if request.nodes > 1:
        # Neighbours in rank on nodes that Slurm lists beside each other. Nodes under few switches it chooses anyway, of
        # those that are free; --switches only waits for better ones, at every start, which is for the user to ask for.
        own["distribution"] = "block"
    given = {name.replace("_", "-"): value for name, value in request.slurm.items()}
    if not given.keys() & {"requeue", "no-requeue"}:
        own["requeue"] = True
    return {name: value for name, value in {**own, **given}.items() if value is not False}


def _minutes(seconds: int) -> int:
    return math.ceil(seconds / 60)


def _env_file(request: JobRequest) -> Path:
    """Where the script finds `env`: Slurm shows a script to administrators, and keeps copies of it."""
    return request.log_folder / f"{request.role}.env"


def _exports(env: Mapping[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())


@contextmanager
def _clean_environment() -> Iterator[None]:
    """submitit's, but for the variables that say where Slurm is."""
    access = access_environment()
    with clean_env():
        os.environ.update(access)
        yield


def _unsubmitted(request: JobRequest) -> Iterator[Path]:
    """The files of submissions that have no job id (yet): submitit leaves them where sbatch refuses the job."""
    for pattern in (".submission_file_*.sh", "*.pkl"):
        yield from (path for path in request.log_folder.glob(pattern) if not path.name.endswith("_submitted.pkl"))


def _has_timed_out(error: Exception) -> bool:
    return isinstance(error.__cause__, subprocess.CalledProcessError) and error.__cause__.returncode == _TIMED_OUT


def _failure(request: JobRequest, error: Exception) -> SlurminferError:
    if isinstance(error, FailedSubmissionError):
        return _unclear(request, str(error))
    return _late(request) if _has_timed_out(error) else _refusal(request, str(error))


def _unclear(request: JobRequest, said: str) -> SlurmError:
    return SubmissionUnclearError(
        f"sbatch did not say the id of job '{request.name}': {said.partition(_ADVICE)[0].strip()}. "
        "Slurm may have taken the job: 'squeue --me' shows it"
    )


def _late(request: JobRequest) -> SlurmError:
    return SubmissionUnclearError(
        f"sbatch gave no answer for job '{request.name}' within {_SBATCH_S} s: is SLURM_CONF right, and does 'sinfo' "
        "answer? Slurm may have taken the job: 'squeue --me' shows it"
    )


def _refusal(request: JobRequest, stderr: str) -> SlurminferError:
    said = own_words(stderr)
    message = f"Slurm refused job '{request.name}': {said or 'sbatch said nothing'}"
    if "partition" in message.lower():
        names = ", ".join(dict.fromkeys(ask(["sinfo", "--noheader", "--all", "--format=%R"]).split()))
        message += f" (partitions here: {names})"
    advice = advice_on(said)
    return SlurmError(f"{message}. What to change: {advice}" if advice else message)
