"""`slurminfer batch cancel`."""

import os
import platform
import signal
import time
from collections.abc import Callable
from pathlib import Path

from ....core.errors import SlurminferError
from ....core.processes.process_id import is_running, pid_of
from ...launch.launchers import launcher_named
from ...serve.deployment import end_jobs
from ...terminal.console import stdout
from ..ledger.look import DriverSign, drivers_of
from ..submit.folder import JobsFolder
from ..submit.job import living_drivers

_PATIENCE_S = 90.0  # a driver that is told to end stops its deployment first
_STEP_S = 0.2


def cancel(output: Path) -> None:
    """End what works on an output, and say what that was; the ledger stays, so that the batch can be resumed.

    Raises BatchError where there is no ledger; at the end, SlurminferError for what could not be ended.
    """
    folder = JobsFolder(output)
    folder.require()
    ended, troubles = [], []
    served = [run.path.name for run in folder.deployments.living()]  # a driver that is told to end may stop it itself
    for end in (_end_drivers, _end_processes, _name_those_elsewhere, _end_deployments):
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


def _end_processes(folder: JobsFolder) -> list[str]:
    """End drivers that are processes of this machine, and wait for it: what they have got is on the disk then."""
    living = [driver.process for driver in drivers_of(folder.ledger) if driver.is_living and _is_here(driver)]
    refused = [process for process in living if not _told_to_end(process)]
    if refused:
        raise SlurminferError(f"driver process {_pids(refused)} is another user's: only they can end it")
    if left := wait_for(living):
        raise SlurminferError(f"driver process {_pids(left)} has not ended {_PATIENCE_S:g} s after SIGTERM")
    return [f"driver process {pid_of(process)} ended" for process in living]


def wait_for(
    processes: list[str], clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> list[str]:
    """Wait until processes have ended; those that have not after a while."""
    until = clock() + _PATIENCE_S
    while (left := [process for process in processes if is_running(process)]) and clock() < until:
        sleep(_STEP_S)
    return left


def _name_those_elsewhere(folder: JobsFolder) -> list[str]:
    """Raise SlurminferError for drivers on other machines: in jobs that `--submit` does not know, or at a terminal."""
    others = [driver for driver in drivers_of(folder.ledger) if driver.is_living and not _is_here(driver)]
    if left := [driver for driver in others if driver.job is None or not folder.was_submitted]:
        raise SlurminferError("; ".join(map(_elsewhere, left)))
    return []


def _elsewhere(driver: DriverSign) -> str:
    how = "end it there" if driver.job is None else f"scancel {driver.job}"
    pid = driver.process.partition("@")[0]
    return f"driver process {pid} is on {driver.host} and cannot be ended from here: {how}"


def _is_here(driver: DriverSign) -> bool:
    try:
        return driver.host == platform.node() and is_running(driver.process)
    except ValueError:
        return False


def _told_to_end(process: str) -> bool:
    try:
        os.kill(pid_of(process), signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def _pids(processes: list[str]) -> str:
    return ", ".join(str(pid_of(process)) for process in processes)


def _end_deployments(folder: JobsFolder) -> list[str]:
    folder.deployments.stop()
    return []
