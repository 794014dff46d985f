"""The site profile: what `slurminfer doctor` has learned of a cluster, for later commands to read.

Times are Unix seconds, sizes are bytes.
"""

from typing import Literal

import msgspec

from .machine import Machine

VERSION = 1
Outcome = Literal["seen", "refused", "waited", "failed"]


class GpuKind(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs of one type in a partition, as sinfo lists its nodes' GRES."""

    type: str  # empty: Slurm gives them no type
    per_node: int
    nodes: int


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt to connect to a port of a node."""

    source: str  # host that connects
    target: str  # host that listens
    address: str
    interface: str  # of the target
    is_open: bool
    seconds: float | None = None  # until it was connected
    why_not: str = ""


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one task of the job has seen on its node."""

    machine: Machine
    may_submit: bool | None = None  # sbatch --test-only was accepted there
    submit_answer: str = ""  # Slurm's words where it was not
    clock_offset_s: float | None = None  # its clock minus this machine's
    clock_error_s: float | None = None  # most by which that may be wrong


class PartitionProfile(msgspec.Struct, frozen=True, kw_only=True):
    """One partition: what Slurm says of it, and what a job in it has seen."""

    name: str
    date: float
    outcome: Outcome  # of the latest job
    reason: str = ""  # why that has seen nothing
    seen_at: float | None = None  # when the latest job has seen it; what follows down to `waited_s`, and reports and
    # routes, are of that one
    job: str | None = None
    gpu_option: str = ""  # with which the job got a GPU, such as --gpus-per-node=1 or --gres=gpu:1
    asked_cpus: int = 0
    asked_gpus: int = 0
    asked_memory: str = ""  # of a job that is refused without; in Slurm's notation
    waited_s: float | None = None  # from the submission to the start
    gpus: tuple[GpuKind, ...] = ()
    cpus_per_node: int | None = None
    memory_per_node: int | None = None
    nodes: int = 0
    max_time_s: int | None = None
    default_time_s: int | None = None
    preempt_mode: str = ""
    grace_s: int = 0
    features: tuple[str, ...] = ()
    reports: tuple[NodeReport, ...] = ()  # in the order of the tasks
    routes: tuple[Route, ...] = ()


class ClusterProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all partitions."""

    name: str
    slurm_version: str
    has_accounting: bool
    enforces_accounts: bool  # a job of an account or QOS that is not the user's is refused
    preempt_signal: bool  # a preempted job gets its own --signal (preempt_send_user_signal)
    min_job_age_s: int | None  # after which squeue forgets an ended job
    kill_wait_s: int | None  # from SIGTERM to SIGKILL
    max_jobs: int | None
    max_array: int | None
    memory_per_cpu_mb: int | None  # what a job gets that asks for none
    memory_per_node_mb: int | None
    selects_memory: bool  # memory is shared out, not only CPUs
    has_pyxis: bool
    qos: tuple[str, ...] = ()


class SiteProfile(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a site."""

    version: int = VERSION
    date: float
    home: str  # SLURMINFER_HOME
    here: Machine  # where the command ran
    cluster: ClusterProfile | None = None  # None: no Slurm
    partitions: tuple[PartitionProfile, ...] = ()
    skipped: tuple[str, ...] = ()  # what could not be looked at, and why
