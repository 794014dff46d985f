"""Checks of what every kind of Slurm job can be given."""

import re

from ..errors import SpecError
from .job import JobSpec
from .pool import PoolSpec
from .router import RouterSpec
from .values import check_time

_MEM = re.compile(r"\d{1,15}[KMGT]?", re.ASCII)
_SBATCH_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)
# Keys of our own for what these sbatch options say; naming both would leave it open which one counts.
_OWN_SBATCH = {
    "nodes": "nodes", "partition": "partition", "account": "account", "time": "time", "mem": "mem",
    "cpus-per-task": "cpus_per_task", "gpus-per-node": "gpus_per_node", "signal": "drain_seconds",
    "job-name": "name", "output": "the run directory's logs/", "error": "the run directory's logs/",
}  # fmt: skip


def check_section(key: str, job: PoolSpec | RouterSpec | JobSpec) -> None:
    """Raise SpecError for a value that cannot be. `key`: the section's; empty for a file of one job."""
    prefix = f"{key}." if key else ""
    if job.time is not None:
        check_time(f"{prefix}time", job.time)
    if job.mem is not None and not _MEM.fullmatch(job.mem):
        raise SpecError(f"{prefix}mem", job.mem, "expected a number with K, M, G or T, such as '64G'")
    for option in job.slurm:
        if not _SBATCH_OPTION.fullmatch(option):
            raise SpecError(f"{prefix}slurm.{option}", job.slurm[option], "expected the long name of an sbatch option")
        own = _OWN_SBATCH.get(option.replace("_", "-"))
        if own:
            raise SpecError(f"{prefix}slurm.{option}", job.slurm[option], f"say it with {own}, beside slurm")
