"""An engine's process in a container of Pyxis: a job step of its own, beside the agent's, on the agent's node.

The agent stays outside: it needs Slurm's commands and slurminfer's environment, which no image of an engine has. The
step takes nothing from the agent's (--overlap). It ends with the job, which ends with the agent; and when the engine
alone is to end, srun hands SIGTERM on, and `end_step` kills what is left.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ...core.containers import Mount
from ...core.errors import CommandError
from ...core.job import gpu_gres
from ...core.processes import process
from ...core.slurm_env import job_id
from ..engines.launch import EngineLaunch

_STEP = "container.step"  # file in the private folder with the number of the step
_NOTE_STEP = 'echo "$SLURM_STEP_ID" >"$0"; exec "$@"'
_SCANCEL_S = 20.0


def argv(
    words: Sequence[str], launch: EngineLaunch, mounts: Sequence[Mount], names: Iterable[str], node: str
) -> list[str]:
    """The command line that runs `words` in the container.

    Args:
        node: where, by Slurm's name.
        names: of the variables of the container; srun takes their values from its own environment, so that no value
            stands in a process list.
    """
    pool, variables = launch.pool, ",".join(names)
    gres = gpu_gres(pool.slurm)
    option = f"--gres={gres}" if gres else f"--gpus-per-node={pool.gpus_per_node}"
    gpus = [option] if pool.gpus_per_node else []
    return [
        "srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={node}",
        f"--cpus-per-task={pool.cpus_per_task}", "--cpu-bind=none", "--mem=0", "--mpi=none", *gpus,
        f"--export={variables}",
        f"--container-image={pool.container}",
        f"--container-mounts={','.join(map(str, mounts))}",
        f"--container-workdir={launch.private}",
        f"--container-env={variables}",
        "--container-mount-home", "--no-container-remap-root", "--no-container-entrypoint",
        "sh", "-c", _NOTE_STEP, str(launch.private / _STEP), *words,
    ]  # fmt: skip


def end_step(private: Path) -> None:
    """Kill the step of the engine that has been started with this private folder, if it still runs."""
    with suppress(OSError, CommandError):
        step = (private / _STEP).read_text(encoding="ascii").strip()
        (private / _STEP).unlink()
        process.run(["scancel", "--signal=KILL", f"{job_id()}.{step}"], timeout_s=_SCANCEL_S)
