"""From an engine's command line to that of the container that it runs in."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from ...core.slurm_env import node_name
from ...core.spec.deployment import DeploymentSpec
from ...core.spec.pool import PoolSpec
from ..engines.launch import EngineLaunch
from . import apptainer, pyxis
from .mounts import mounts
from .variables import variables

# Slurm sends the walltime's signal to every process of the job; an engine has to finish what it has.
_DEAF = ("sh", "-c", 'trap "" USR2; exec "$@"', "engine")
_PREVIEW = Path("/tmp/slurminfer-XXXXXXXX")


@dataclass(frozen=True)
class Command:
    """What to start, with which variables besides the agent's, and what to do when it has been ended."""

    argv: Sequence[str]
    env: Mapping[str, str]
    after: Callable[[], None] = lambda: None


def contain(command: Command, launch: EngineLaunch) -> Command:
    """The command in the pool's container; as it is, where the pool has none. Raises EngineError."""
    pool = launch.pool
    if pool.container is None:
        return command
    inner, found = variables(command.env, pool.env), mounts(launch)
    words = [*_DEAF, *command.argv]
    if pool.container_runtime == "pyxis":
        if pool.gpus_per_node:
            inner.setdefault("NVIDIA_VISIBLE_DEVICES", "all")  # enroot mounts the driver for those that it names
        argv = pyxis.argv(words, launch, found, inner, node_name())
        return Command(argv, inner, partial(pyxis.end_step, launch.private))
    program = apptainer.program()
    argv = apptainer.argv(program, words, launch, found, is_amd=apptainer.has_amd_gpus())
    return Command(argv, apptainer.env(program, inner))


def preview(spec: DeploymentSpec, pool: PoolSpec) -> str:
    """How the engine of a pool is started in its container, with ENGINE for the engine's own words; empty without one.

    The model is taken as written; one that is not there yet stands as /MODEL.
    """
    if pool.container is None:
        return ""
    model = spec.model_of(pool)
    if not Path(model.path).is_absolute():
        model = msgspec.structs.replace(model, path="/MODEL")
    launch = EngineLaunch(
        model=model, pool=pool, address="", socket=_PREVIEW, key="", private=_PREVIEW, threads=1,
    )  # fmt: skip
    found, words = mounts(launch), [*_DEAF, launch.python, "ENGINE"]
    if pool.container_runtime == "pyxis":
        argv = pyxis.argv(words, launch, found, variables({}, pool.env), "NODE")
    else:
        argv = apptainer.argv("apptainer", words, launch, found)
    return f"# The engine is started on the node by the agent:\n#   {shlex.join(argv)}\n"
