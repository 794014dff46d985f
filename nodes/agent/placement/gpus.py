"""Which GPUs are whose, where workers are local: Slurm gives each of its jobs some, a machine alone shows all to all.

Every local worker takes the same computation's share, as with NUMA nodes.
"""

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from ....core.errors import EngineError
from ....core.machine.nvidia import VISIBLE
from ....core.machine.readings import DEVICES, device_files
from ....core.spec.deployment import DeploymentSpec


def settle(
    spec: DeploymentSpec, slot: int, environ: MutableMapping[str, str] = os.environ, devices: Path = DEVICES
) -> None:
    """Show this process, and what it starts, the GPUs that are the worker's. Raises EngineError if there are too few.

    A worker that asks for none sees none where others ask for some; where nobody asks, all see what they see now.
    """
    wanted = [pool.gpus_per_node for pool in spec.slots()]
    if not any(wanted):
        return
    if slot >= len(wanted):
        raise EngineError(
            f"the spec has {len(wanted)} local workers, among which the GPUs of this machine are divided: no more can "
            "be added with 'slurminfer scale'"
        )
    found = visible(environ, devices)
    first = sum(wanted[:slot])
    if first + wanted[slot] > len(found):
        raise EngineError(
            f"gpus_per_node = {wanted[slot]}: the local workers want {sum(wanted)} GPUs in all, and {len(found)} are "
            "here"
        )
    environ[VISIBLE] = ",".join(found[first : first + wanted[slot]])


def visible(environ: Mapping[str, str], devices: Path) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if VISIBLE in environ:
        return [name for name in environ[VISIBLE].split(",") if name]
    return [path.name.removeprefix("nvidia") for path in device_files(devices)]
