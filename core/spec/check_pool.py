"""Checks of one pool."""

from collections.abc import Mapping

from ..containers import check_container
from ..errors import SpecError
from ..job import is_variable
from .check_job import check_section
from .pool import PoolSpec
from .values import check_time, parse_time


def check_pool(key: str, pool: PoolSpec) -> None:
    """Raise SpecError for a value that cannot be. `key`: the section's, such as pool[0]."""
    check_section(key, pool)
    check_time(f"{key}.start_timeout", pool.start_timeout)
    _check_workers_per_job(f"{key}.workers_per_job", pool)
    _check_env(f"{key}.env", pool.env)
    check_container(key, pool.container, pool.container_runtime, pool.container_mounts)
    _check_stage(f"{key}.stage_weights", pool.stage_weights)
    _check_backfill(key, pool)
    fewest, most = pool.bounds
    if not fewest <= pool.initial_workers <= most:
        given = f"{pool.workers} with min_workers = {fewest}, max_workers = {most}"
        raise SpecError(f"{key}.workers", given, "expected min_workers <= workers <= max_workers")
    _check_walltime(key, pool)


def _check_workers_per_job(key: str, pool: PoolSpec) -> None:
    count = pool.workers_per_job
    if count == 1:
        return
    if pool.nodes > 1:
        raise SpecError(key, count, f"expected 1 with nodes = {pool.nodes}: workers that share a job have one node")
    if count == "numa":
        if pool.gpus_per_node:
            raise SpecError(key, count, "expected a number with gpus_per_node, which it must divide")
        return
    ranks = pool.layout.ranks
    if pool.gpus_per_node and count * ranks != pool.gpus_per_node:
        given = f"expected gpus_per_node = {pool.gpus_per_node} GPUs for all workers"
        raise SpecError(key, count, f"{given}, one for each of the {ranks} ranks of a worker")
    if not pool.gpus_per_node and count * ranks > pool.cpus_per_task:
        given = f"expected at most cpus_per_task = {pool.cpus_per_task} CPUs for all workers"
        raise SpecError(key, count, f"{given}, one at least for each of the {ranks} ranks of a worker")


def _check_backfill(key: str, pool: PoolSpec) -> None:
    if not pool.backfill:
        return
    for name in ("time_min", "max_workers"):
        if getattr(pool, name) is None:
            raise SpecError(f"{key}.{name}", None, "missing; backfill = true needs it")
    for name, usual in (("workers", 1), ("min_workers", 0)):
        if getattr(pool, name) not in (None, usual):
            expected = "expected max_workers alone: with backfill = true there may be none, and serve starts none"
            raise SpecError(f"{key}.{name}", getattr(pool, name), expected)
    for name in pool.slurm:
        if name.replace("_", "-") in ("requeue", "no-requeue"):
            expected = "expected neither requeue nor no-requeue: jobs of a backfill pool never go back to the queue"
            raise SpecError(f"{key}.slurm.{name}", pool.slurm[name], expected)


def _check_walltime(key: str, pool: PoolSpec) -> None:
    for option in pool.slurm:
        if option.replace("_", "-") == "time-min":
            raise SpecError(f"{key}.slurm.{option}", pool.slurm[option], "say it with time_min, beside slurm")
    name, shortest, seconds = "time", pool.time, pool.time_s
    if pool.time_min is not None:
        check_time(f"{key}.time_min", pool.time_min)
        name, shortest, seconds = "time_min", pool.time_min, parse_time(pool.time_min)
        if seconds > pool.time_s:
            raise SpecError(f"{key}.time_min", pool.time_min, f"expected at most time = {pool.time}")
    if pool.drain_seconds >= seconds:
        raise SpecError(f"{key}.drain_seconds", pool.drain_seconds, f"expected less than {name} = {shortest}")


def _check_env(key: str, env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if not is_variable(name):
            expected = "expected letters, digits or '_' as the variable's name, not beginning with a digit"
            raise SpecError(f"{key}.{name}", value, expected)


def _check_stage(key: str, value: bool | str) -> None:
    if isinstance(value, str) and not value.startswith(("/", "$")):
        expected = "expected true, or the absolute path of a folder on the nodes' disks; it may begin with a $VARIABLE"
        raise SpecError(key, value, expected)
