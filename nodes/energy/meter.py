"""Reading the energy of a worker's node now and then, in a thread: a driver that hangs must not hold up the agent."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from ...core.records import HEARTBEAT_S, EnergyRecord
from ...core.slurm_env import cpus_on_node, is_local
from ...core.spec.pool import PoolSpec
from .counter import Counter
from .gpus import SmiCounter, gpu_counter
from .rapl import POWERCAP, Rapl

_PATIENCE_S = 2.0  # for the last reading


class EnergyMeter:
    """Follows the energy of this process's job on this node, from its start to `close`.

    Args:
        pool: of the worker.
        environ: of this process.
        powercap: where the kernel shows the processors' counters.
        period_s: seconds between two readings.
    """

    def __init__(
        self,
        pool: PoolSpec,
        environ: Mapping[str, str] = os.environ,
        powercap: Path = POWERCAP,
        period_s: float = HEARTBEAT_S,
    ) -> None:
        self._pool, self._environ, self._powercap, self._period_s = pool, environ, powercap, period_s
        self._latest: EnergyRecord | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def latest(self) -> EnergyRecord | None:
        """The last reading; None: there is none yet, or nothing can be read."""
        return self._latest

    def close(self) -> None:
        """Read once more, if that does not take long, and no more."""
        self._closing.set()
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        cpu = Rapl(cpu_share(self._pool, self._environ), self._powercap)
        gpu = gpu_counter(self._environ) if self._pool.gpus_per_node else None
        is_last = False
        while True:
            self._latest = reading(cpu, gpu)
            if is_last or self._latest is None:
                return
            is_last = self._closing.wait(self._period_s)


def reading(cpu: Counter, gpu: Counter | None) -> EnergyRecord | None:
    """What the counters say now; None where they say nothing."""
    cpu_j, gpu_j = cpu.joules(), None if gpu is None else gpu.joules()
    if cpu_j is None and gpu_j is None:
        return None
    return EnergyRecord(cpu_j=cpu_j, gpu_j=gpu_j, is_sampled=isinstance(gpu, SmiCounter))


def cpu_share(pool: PoolSpec, environ: Mapping[str, str], cpus: int | None = None, allowed: int | None = None) -> float:
    """The part of the node's CPUs that this process's job has, 0 to 1.

    Args:
        pool: says how many where nothing else does.
        environ: of this process.
        cpus: of the machine.
        allowed: on which this process may run.
    """
    cpus = cpus or os.cpu_count() or 1
    allowed = allowed or len(os.sched_getaffinity(0))
    is_confined = allowed < cpus and not is_local(environ)  # without Slurm, several may be kept to the same CPUs
    own = allowed if is_confined else cpus_on_node(environ) or pool.cpus_per_task
    return min(1.0, own / cpus)
