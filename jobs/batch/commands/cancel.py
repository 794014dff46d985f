"""`slurminfer batch cancel`."""

from pathlib import Path

from ....core.errors import SlurminferError
from ...launch.launchers import launcher_named
from ...serve.deployment import end_jobs
from ...terminal.console import stdout
from ..submit.folder import JobsFolder
from ..submit.job import living_drivers


def cancel(output: Path) -> None:
    """End what works on an output, and say what that was; the ledger stays, so that the batch can be resumed.

    Raises BatchError where there is no ledger; at the end, SlurminferError for what could not be ended.
    """
    folder = JobsFolder(output)
    folder.require()
    ended, troubles = [], []
    served = [run.path.name for run in folder.deployments.living()]  # a driver that is told to end may stop it itself
    for end in (_end_drivers, _end_deployments):
        try:
            ended += end(folder)
        except SlurminferError as error:
            troubles.append(str(error))
    left = {run.path.name for run in folder.deployments.living()}
    ended += [f"deployment '{name}' stopped" for name in served if name not in left]
    for line in ended:
        stdout.print(line)
    if not ended and not troubles:
        stdout.print(f"nothing of {output} was running")
    stdout.print(f"what is done is kept in {folder.ledger}; the same 'slurminfer batch' command goes on from there")
    if troubles:
        raise SlurminferError("; ".join(troubles))


def _end_drivers(folder: JobsFolder) -> list[str]:
    """Cancel the jobs of drivers, and wait until they have ended: then they do not start anything any more."""
    if not folder.was_submitted:
        return []
    launcher = launcher_named("slurm")
    living = living_drivers(folder, launcher)
    end_jobs(launcher, living)
    return [f"driver job {job.id} cancelled" for job in living]


def _end_deployments(folder: JobsFolder) -> list[str]:
    folder.deployments.stop()
    return []
