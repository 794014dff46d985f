"""How many threads an engine takes, and on which CPUs.

Workers on machines with several NUMA nodes: an engine that keeps to one has all its weights in the memory beside it.

Slurm gives each of its tasks CPUs of one socket where it can. Local workers share a machine, or the job that they run
in, without anybody to divide it: they do it themselves, each by the same computation.
"""

import os
from pathlib import Path

from ...core.machine.cpus import SYSTEM, Cpus, numa_home
from ...core.spec import DeploymentSpec, PoolSpec


def engine_threads(pool: PoolSpec, found: Cpus) -> int:
    """Threads of the engine's process on this node, all its ranks together: the CPUs asked for, one a core at most."""
    return min(pool.cpus_per_task, found.cores)


def settle(spec: DeploymentSpec, slot: int, system: Path = SYSTEM) -> None:
    """Make this process, and what it starts, keep to the NUMA node that is the worker's; if that helps."""
    pools = spec.slots()
    if not all(_computes_here(pool) for pool in pools):
        return
    home = numa_home(slot, [pool.cpus_per_task for pool in pools], system=system)
    if home is not None:
        os.sched_setaffinity(0, home)


def advice(pool: PoolSpec, threads: int, found: Cpus) -> str | None:
    """What to change in the spec where so many threads are on more NUMA nodes than one."""
    nodes = found.numa_nodes
    if nodes == 1 or threads * nodes <= found.cores or pool.layout.ranks > 1 or not _computes_here(pool):
        return None
    return (
        f"one engine on {nodes} NUMA nodes reads weights across; one on each computes more in all: "
        f"workers = {pool.workers * nodes}, cpus_per_task = {pool.cpus_per_task // nodes} (pool '{pool.name}')"
    )


def _computes_here(pool: PoolSpec) -> bool:
    """By our own engine on CPUs. Others place their threads by themselves."""
    return pool.engine == "native" and pool.gpus_per_node == 0
