"""What each of several workers of one job gets of the job's CPUs and GPUs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from ....core.errors import EngineError
from ....core.machine.cpus import SYSTEM, by_core, cpu_ids
from ....core.machine.numa import divide_cpus, numa_domains
from ....core.machine.nvidia import ask_smi
from ....core.machine.readings import DEVICES
from ....core.spec.pool import PoolSpec
from .gpu_order import Ask, gpu_order
from .gpus import visible


@dataclass(frozen=True)
class Share:
    """Of one worker."""

    pool: PoolSpec  # as if the worker had a job to itself
    cpus: frozenset[int]
    gpus: str | None = None  # CUDA_VISIBLE_DEVICES; None: as it is, because the pool has no GPUs


def shares(
    pool: PoolSpec,
    environ: Mapping[str, str],
    allowed: Iterable[int] | None = None,
    system: Path = SYSTEM,
    devices: Path = DEVICES,
    ask: Ask = ask_smi,
) -> list[Share]:
    """One share for each worker, by what the job was really given. Raises EngineError where it is too little.

    Args:
        pool: of the workers.
        environ: of this process; it names the GPUs.
        allowed: CPUs; by default this process's.
        system: where the kernel tells of its CPUs and nodes.
        devices: where the device files are.
        ask: asks nvidia-smi.
    """
    ids = cpu_ids(allowed)
    if pool.workers_per_job == "numa":
        domains = numa_domains(ids, system)
        return [_share(pool, len(domains), domain.cpus, system) for domain in domains]
    count = pool.workers_per_job
    cpus = divide_cpus(count, ids, system) or ([ids] if count == 1 else None)
    if cpus is None and not pool.gpus_per_node:
        cores = len(by_core(ids, system))
        raise EngineError(f"workers_per_job = {count}: the job has {cores} cores, and each worker needs one at least")
    if not pool.gpus_per_node:
        return [_share(pool, count, each, system) for each in cpus or ()]
    groups = _gpus(pool, count, environ, devices, ask)
    # The agent of each worker keeps to the CPUs beside its GPUs; fewer cores than workers are shared by all.
    return [_share(pool, count, ids, system, ",".join(group)) for group in groups]


def _share(pool: PoolSpec, count: int, cpus: frozenset[int], system: Path, gpus: str | None = None) -> Share:
    of_each = len(cpus) if gpus is None else max(pool.cpus_per_task // count, 1)
    if gpus is None and len(by_core(cpus, system)) < pool.layout.ranks:
        raise EngineError(
            f"workers_per_job = {pool.workers_per_job!r}: one of {count} workers has {len(cpus)} CPUs, and needs a "
            f"core for each of its {pool.layout.ranks} ranks"
        )
    own = replace(pool, workers_per_job=1, cpus_per_task=of_each, gpus_per_node=pool.gpus_per_node // count)
    return Share(own, cpus, gpus)


def _gpus(pool: PoolSpec, count: int, environ: Mapping[str, str], devices: Path, ask: Ask) -> list[list[str]]:
    """The GPUs of each worker, those of one connected by NVLink where that is possible."""
    size = pool.gpus_per_node // count
    # A worker's GPUs are to each other what those of one tensor-parallel group are.
    order = gpu_order(replace(pool, tensor_parallel=size), environ, ask)
    names = order.visible.split(",") if order.visible else visible(environ, devices)
    if len(names) < pool.gpus_per_node:
        raise EngineError(f"gpus_per_node = {pool.gpus_per_node}: the job has {len(names)} GPUs")
    return [names[start : start + size] for start in range(0, count * size, size)]
