"""From a section of a spec to a job request."""

from pathlib import Path
from typing import Any

from ...core.job import Entry, JobRequest
from ...core.spec import JobSection


def request_of(
    section: JobSection, *, name: str, role: str, entry: Entry, log_folder: Path, time_s: int, **other: Any
) -> JobRequest:
    """The job that runs `entry` on what `section` asks for.

    Args:
        section: partition, account, CPUs, memory, setup lines and further sbatch options of the job.
        time_s: walltime limit in seconds.
        other: further fields of `JobRequest`; they win over those of the section.
    """
    fields = {
        "cpus_per_task": section.cpus_per_task,
        "mem": section.mem,
        "partition": section.partition,
        "account": section.account,
        "setup": section.setup,
        "slurm": section.slurm,
    }
    return JobRequest(name=name, role=role, entry=entry, log_folder=log_folder, time_s=time_s, **{**fields, **other})
