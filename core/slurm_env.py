"""What the environment tells a process of the job it runs in. The only reader of SLURM_* and SLURMINFER_LOCAL."""

import os
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

LOCAL = {"SLURMINFER_LOCAL": "1"}  # what a job without Slurm has in its environment
_WORKERS = "SLURMINFER_WORKERS_OF_JOB"
_OWN_JOB = "SLURMINFER_JOB"  # without Slurm: the pid of the process that is the job
_MIB = 1 << 20
# Slurm sends it to all processes of a job some time before the walltime limit: slurm/submit.py asks for it by
# --signal=USR2@SECONDS. It is the one that submitit requeues a job on.
WALLTIME_SIGNAL = signal.SIGUSR2


@dataclass(frozen=True, kw_only=True)
class JobPlace:
    """One task of a job. Times are Unix seconds."""

    job: str  # Slurm's job id; without Slurm the process id
    epoch: int  # how often Slurm has requeued the job
    node_rank: int  # 0 is the head: it registers, the others follow
    host: str
    local: bool  # a process of this machine, without Slurm
    ends_at: float | None  # walltime limit; None: there is none

    @classmethod
    def here(cls, time_s: int, environ: Mapping[str, str] = os.environ) -> "JobPlace":
        """The place of this process; `time_s` is the walltime in seconds that was asked for."""
        host = socket.gethostname()
        if is_local(environ):
            return cls(job=str(os.getpid()), epoch=0, node_rank=0, host=host, local=True, ends_at=None)
        return cls(
            job=environ["SLURM_JOB_ID"],
            epoch=restart_count(environ),
            node_rank=task_rank(environ),
            host=host,
            local=False,
            ends_at=_end_time(time_s, environ),
        )


def is_local(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process was started by the local launcher, without Slurm."""
    return environ.get("SLURMINFER_LOCAL") == "1"


def node_name(environ: Mapping[str, str] = os.environ) -> str:
    """Slurm's name of this node, which need not be its hostname; without Slurm the hostname."""
    return environ.get("SLURMD_NODENAME") or socket.gethostname()


def job_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """Slurm's id of the job around this process; None outside of a job."""
    return environ.get("SLURM_JOB_ID") or None


def as_own_job() -> dict[str, str]:
    """What a process that this one starts has in its environment, so that it belongs to the same job without Slurm."""
    return {_OWN_JOB: str(os.getpid())}


def as_one_of(workers: int) -> dict[str, str]:
    """What a worker has in its environment that shares its job with others."""
    return {_WORKERS: str(workers)}


def workers_of_job(environ: Mapping[str, str] = os.environ) -> int:
    """Workers that share the memory of the job around this process on this node."""
    return max(_number(environ, _WORKERS, 1), 1)


def recorded_job(environ: Mapping[str, str] = os.environ) -> str:
    """The id by which records name the job around this process: Slurm's, or the pid of the process that is the job."""
    return job_id(environ) or environ.get(_OWN_JOB) or str(os.getpid())


def restart_count(environ: Mapping[str, str] = os.environ) -> int:
    """How often Slurm has requeued this job; 0 outside of a job."""
    return _number(environ, "SLURM_RESTART_COUNT", 0)


def job_ends_at(time_s: int, environ: Mapping[str, str] = os.environ) -> float | None:
    """Unix time of the walltime limit of the job that has just started around this process; None outside of a job.

    Args:
        time_s: the walltime that was asked for.
    """
    return None if is_local(environ) or job_id(environ) is None else _end_time(time_s, environ)


def partition(environ: Mapping[str, str] = os.environ) -> str | None:
    """The job's partition; None outside of a job."""
    return environ.get("SLURM_JOB_PARTITION")


def node_count(environ: Mapping[str, str] = os.environ) -> int:
    """Nodes of the job; 1 outside of a job."""
    return _number(environ, "SLURM_JOB_NUM_NODES", 1)


def cpus_on_node(environ: Mapping[str, str] = os.environ) -> int | None:
    """CPUs of the job step on this node; None outside of a job."""
    return _number(environ, "SLURM_CPUS_ON_NODE", 0) or None


def gpus_on_node(environ: Mapping[str, str] = os.environ) -> int | None:
    """GPUs of the job on this node; None where Slurm does not say."""
    text = environ.get("SLURM_GPUS_ON_NODE", "")
    return int(text) if text.isdigit() else None


def task_rank(environ: Mapping[str, str] = os.environ) -> int:
    """This task's rank in its job step; 0 outside of one."""
    return _number(environ, "SLURM_PROCID", 0)


def local_task_rank(environ: Mapping[str, str] = os.environ) -> int:
    """This task's rank among those of its node; 0 outside of a job step."""
    return _number(environ, "SLURM_LOCALID", 0)


def task_count(environ: Mapping[str, str] = os.environ) -> int:
    """Tasks of the job step around this process; 1 where it is none, as in a batch script."""
    in_step = environ.get("SLURM_STEP_ID", "").isdigit()
    return _number(environ, "SLURM_STEP_NUM_TASKS", 1) if in_step else 1


def memory_limits(environ: Mapping[str, str] = os.environ) -> list[int]:
    """Bytes that the job asked for on this node by --mem or --mem-per-cpu; none where it asked for all of the node."""
    per_node, per_cpu = (_number(environ, f"SLURM_MEM_PER_{unit}", 0) * _MIB for unit in ("NODE", "CPU"))
    limits = (per_node, per_cpu * _number(environ, "SLURM_CPUS_ON_NODE", 0))
    return [limit for limit in limits if limit]


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "")
    return int(text) if text.isdigit() else default


def _end_time(time_s: int, environ: Mapping[str, str]) -> float:
    # Slurm exports the end time only since 23.02; before, the walltime asked for is the best that a task knows.
    said = environ.get("SLURM_JOB_END_TIME", "")
    return float(said) if said.isdigit() else time.time() + time_s
