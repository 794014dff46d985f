"""Submitting a batch's drivers."""

import re
import time
from pathlib import Path

from ....core.errors import BatchError
from ....core.job import JobRequest, Launcher
from ....core.paths import make_home
from ....core.records import JobRecord
from ....core.spec.job import JobSpec
from ...launch.jobs import observe_jobs
from ...launch.request import request_of
from ..batch import Batch
from .entry import KEY, DriverEntry
from .folder import DriverJobs, JobsFolder

ROLE = "driver"
_SIGNAL_S = 60  # before the walltime limit, for what is in flight to be dropped and results to be written


def request(batch: Batch, section: JobSpec, drivers: int = 1, key: str | None = None) -> JobRequest:
    """The job of so many drivers, an array if they are several. Pure.

    Args:
        batch: what they do.
        section: what each of them gets.
        drivers: their number.
        key: of the endpoint; it is handed on in a file that only its owner can read.
    """
    output = batch.output.path.absolute()
    return request_of(
        section,
        name=name_of(output),
        role=ROLE,
        entry=DriverEntry(output),
        log_folder=JobsFolder(output).path,
        time_s=section.time_s,
        array=drivers,
        signal_s=min(_SIGNAL_S, section.time_s // 2),
        env={KEY: key} if key and batch.endpoint.url is not None else {},
    )


def submit(asked: JobRequest, batch: Batch, launcher: Launcher) -> DriverJobs:
    """Submit the drivers, unless some of this output wait or run already.

    Raises BatchError that names those, SlurmError where Slurm refuses.
    """
    launcher.check(asked)
    make_home()
    folder = JobsFolder(batch.output.path)
    with folder.one_at_a_time():
        if living := living_drivers(folder, launcher):
            raise BatchError(
                f"job {', '.join(job.id for job in living)} works on {batch.output.path} already: 'slurminfer batch "
                f"status {batch.output.path}' shows how far it is, 'slurminfer batch cancel {batch.output.path}' ends "
                "it"
            )
        folder.write_batch(batch, of_jobs=True)
        id = launcher.submit(asked)
        jobs = DriverJobs(id=id, name=asked.name, drivers=asked.array, submitted_at=time.time())
        folder.write_jobs(jobs)
    return jobs


def living_drivers(folder: JobsFolder, launcher: Launcher) -> list[JobRecord]:
    """The driver jobs of an output that wait or run, of an array each; also one that nobody has lived to note."""
    known = folder.read_jobs()
    statuses = observe_jobs(launcher.observe, known.jobs) if known else {}
    living = [job for job in (known.jobs if known else ()) if statuses[job.id].phase.is_living]
    sought = JobRequest(
        name=name_of(folder.output), role=ROLE, entry=DriverEntry(folder.output), log_folder=folder.path
    )
    noted = {known.id} if known else set()
    return living + [JobRecord(id=id, name=sought.name, role=ROLE) for id in launcher.find(sought) if id not in noted]


def name_of(output: Path) -> str:
    """The name of the jobs of an output."""
    return f"batch-{_word(output.name)}"


def _word(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)
