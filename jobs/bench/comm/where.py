"""Where `slurminfer bench comm` measures: by what its command line says, and where it was started."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from ....core.errors import UsageError
from ....core.slurm_env import gpus_on_node, job_id, node_count, task_count
from ....core.spec.files import check_job
from ....core.spec.job import JobSpec

_LOCAL_RANKS = 2
_JOB_TIME = "00:10:00"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says of where to measure; None where it does not."""

    local: bool = False
    ranks: int | None = None
    nodes: int | None = None
    ranks_per_node: int | None = None
    partition: str | None = None
    account: str | None = None
    gpus_per_node: int | None = None
    mem: str | None = None
    time: str | None = None

    def given(self, *names: str) -> list[str]:
        """Those of the named options that were given, as they are written, such as "--nodes"."""
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]


@dataclass(frozen=True)
class Here:
    """Measure between processes of this machine."""

    ranks: int


@dataclass(frozen=True)
class JobStep:
    """Measure in a step of the job that this process runs in."""

    nodes: int
    ranks_per_node: int

    @property
    def ranks(self) -> int:
        """How many there are on all nodes."""
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True)
class Job:
    """Measure in a job of its own."""

    spec: JobSpec
    ranks_per_node: int

    @property
    def ranks(self) -> int:
        """How many there are on all nodes."""
        return self.spec.nodes * self.ranks_per_node


Where = Here | JobStep | Job


def slurm_is_here() -> bool:
    """Whether jobs can be submitted from this machine."""
    from ....slurm.submit import available

    return available()


def choose(
    asked: Asked, environ: Mapping[str, str] = os.environ, slurm_is_here: Callable[[], bool] = slurm_is_here
) -> Where:
    """Where to measure. Raises UsageError where the options do not go together, SpecError for their values."""
    of_jobs = [field.name for field in fields(Asked) if field.name not in ("local", "ranks")]
    if asked.local:
        _refuse(asked.given(*of_jobs), "--local starts processes of this machine: give it --ranks only")
        return _with_several(Here(asked.ranks or _LOCAL_RANKS))
    job, asked_for_nodes = job_id(environ), asked.given(*of_jobs)
    if job is None and not asked_for_nodes:
        if slurm_is_here():
            raise UsageError("expected --nodes for a job of its own, an allocation around it (salloc), or --local")
        return _with_several(Here(asked.ranks or _LOCAL_RANKS))
    _refuse(asked.given("ranks"), "how many there are on a node is said by --ranks-per-node")
    if job is None:
        return _with_several(_job(asked))
    _refuse(asked.given("partition", "account", "gpus_per_node", "mem", "time"), f"job {job} around it has its nodes")
    return _with_several(_step(asked, environ))


def _job(asked: Asked) -> Job:
    ranks_per_node = asked.ranks_per_node or asked.gpus_per_node or 1
    spec = JobSpec(
        nodes=asked.nodes or 1,
        partition=asked.partition,
        account=asked.account,
        gpus_per_node=asked.gpus_per_node or 0,
        mem=asked.mem,
        time=asked.time or _JOB_TIME,
        cpus_per_task=ranks_per_node,  # its task is the node's
    )
    check_job(spec)
    return Job(spec, ranks_per_node)


def _step(asked: Asked, environ: Mapping[str, str]) -> JobStep:
    if task_count(environ) > 1:
        raise UsageError("every task of this job step would measure at once: start it without srun")
    there = node_count(environ)
    if asked.nodes is not None and asked.nodes > there:
        raise UsageError(f"--nodes {asked.nodes}: expected at most the {there} of job {job_id(environ)}")
    return JobStep(asked.nodes or there, asked.ranks_per_node or gpus_on_node(environ) or 1)


def _with_several(where: Where) -> Where:
    if where.ranks < 2:
        raise UsageError("one rank has nobody to talk to: expected more --nodes, --ranks-per-node or --ranks")
    return where


def _refuse(given: list[str], why: str) -> None:
    if given:
        raise UsageError(f"{', '.join(given)}: {why}")
