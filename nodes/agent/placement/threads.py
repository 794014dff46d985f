"""How many threads an engine takes, and on which CPUs.

The number is for engines that have a flag for it, as the native one; it divides its CPUs among its ranks itself. SGLang
and vLLM are told the CPUs of each rank.

On a machine with several NUMA nodes, an engine that keeps to one of them has all its weights in the memory beside it.
Slurm gives each task CPUs of one socket where it can. Local workers have nobody who divides the machine's CPUs, or
those of the job around them: each computes the same division, and takes the part of its slot.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from ....core.machine.cpus import SYSTEM, Cpus, by_core, cpu_ids
from ....core.machine.memory_policy import prefer_own_memory
from ....core.machine.numa import divide_cpus, numa_home
from ....core.spec.deployment import DeploymentSpec
from ....core.spec.pool import PoolSpec


def engine_threads(pool: PoolSpec, found: Cpus) -> int:
    """Threads of the engine on this node, all its ranks together: one for each CPU asked for, at most one per core."""
    return min(pool.cpus_per_task, found.cores)


def rank_cpus(
    pool: PoolSpec, threads: int, allowed: Iterable[int] | None = None, system: Path = SYSTEM
) -> tuple[tuple[int, ...], ...]:
    """The CPUs for the threads of each rank on this node, one of each core; `threads` is as of `engine_threads`.

    Empty where that is the engine's to decide: on GPUs, or where there are more ranks than cores.
    """
    ids, ranks = cpu_ids(allowed), pool.layout.ranks_per_node
    if pool.gpus_per_node:
        return ()
    shares = [ids] if ranks == 1 else divide_cpus(ranks, ids, system)
    if shares is None:
        return ()
    each = max(threads // ranks, 1)
    return tuple(tuple(sorted(min(core) for core in by_core(share, system)))[:each] for share in shares)


def settle(spec: DeploymentSpec, slot: int, system: Path = SYSTEM) -> None:
    """Bind this process, and what it starts, to the NUMA node of a local worker.

    Does nothing where `numa_home` says that it would not help, or where a worker of the spec does not compute on CPUs
    with the native engine: which CPUs that one takes is not known.

    Args:
        slot: the worker's number among all workers of the spec, see `DeploymentSpec.slots`.
    """
    pools = spec.slots()
    if not all(_computes_here(pool) for pool in pools):
        return
    home = numa_home(slot, [pool.cpus_per_task for pool in pools], system=system)
    if home is not None:
        os.sched_setaffinity(0, home)


def keep_memory_near() -> None:
    """Let this process, and what it starts, prefer the memory beside its CPUs."""
    if trouble := prefer_own_memory():
        print(trouble, flush=True)


def advice(pool: PoolSpec, threads: int, found: Cpus) -> str | None:
    """What to change in the spec where so many threads are on more NUMA nodes than one."""
    nodes = found.numa_nodes
    if nodes == 1 or threads * nodes <= found.cores or pool.layout.ranks > 1 or not _computes_here(pool):
        return None
    return (
        f"one engine on {nodes} NUMA nodes reads weights across; one on each computes more in all: "
        f"workers_per_job = \"numa\" (pool '{pool.name}')"
    )


def _computes_here(pool: PoolSpec) -> bool:
    """By our own engine on CPUs. Others place their threads by themselves."""
    return pool.engine == "native" and pool.gpus_per_node == 0
