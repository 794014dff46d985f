"""From a section of a spec to a job request."""

from pathlib import Path
from typing import Any

from ...core.job import Entry, JobRequest, gpu_gres
from ...core.spec.job import JobSection


def request_of(
    section: JobSection, *, name: str, role: str, entry: Entry, log_folder: Path, time_s: int, **other: Any
) -> JobRequest:
    """The job that runs `entry` on what `section` asks for.

    Args:
        section: partition, account, CPUs, memory, setup lines and further sbatch options of the job.
        time_s: walltime limit in seconds.
        other: further fields of `JobRequest`; they win over those of the section. But where the section's `slurm.gres`
            names GPUs, --gpus-per-node does not: Slurm refuses the two where they differ.
    """
    fields = {
        "cpus_per_task": section.cpus_per_task,
        "mem": section.mem,
        "partition": section.partition,
        "account": section.account,
        "setup": section.setup,
        "slurm": section.slurm,
    }
    if gpu_gres(section.slurm):
        other["gpus_per_node"] = 0
    return JobRequest(name=name, role=role, entry=entry, log_folder=log_folder, time_s=time_s, **{**fields, **other})
