"""Processor, memory and GPUs."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from ...core.machine import memory as machine_memory
from ...core.machine.cpus import SYSTEM, allowed_cpus, number_of, parse_cpu_list, read_text
from ...core.machine.numa import node_memory
from ...core.machine.nvidia import VISIBLE, ask_smi
from ...core.machine.readings import DEVICES, cpu_flags, cpu_name, device_files
from ...core.site.machine import Gpus, Memory, NumaDomain, Processor, VisibleBy
from ...core.slurm_env import memory_limits

_TOLD = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")
_SMI = ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")


def processor(system: Path = SYSTEM) -> Processor:
    """The machine's CPUs, and those of this process."""
    allowed = frozenset(os.sched_getaffinity(0))
    flags = cpu_flags()
    return Processor(
        name=cpu_name(),
        cpus_of_machine=os.cpu_count() or len(allowed),
        cpus=tuple(sorted(allowed)),
        cores=allowed_cpus(allowed, system).cores,
        numa=_numa(allowed, system),
        numa_of_machine=_of_machine(system),
        instructions=tuple(name for name in _TOLD if name in flags),
    )


def memory(environ: Mapping[str, str], root: Path = Path("/")) -> Memory:
    """Main memory, and what bounds this process."""
    return Memory(
        of_machine=machine_memory.total_bytes(root),
        cgroup_limit=machine_memory.cgroup_limit(root),
        slurm_limit=min(memory_limits(environ), default=None),
    )


def gpus(environ: Mapping[str, str], devices: Path = DEVICES) -> Gpus:
    """The GPUs that this process can open, and those that it is told of."""
    visible = environ.get(VISIBLE)
    return Gpus(
        visible_devices=visible,
        visible_by=visible_by(visible),
        device_files=sum(map(_opens, device_files(devices))),
        names=tuple(ask_smi(_SMI).splitlines()),
    )


def visible_by(visible: str | None) -> VisibleBy:
    """How CUDA_VISIBLE_DEVICES names GPUs."""
    words = [word for word in (visible or "").split(",") if word]
    if not words:
        return "none"
    if all(word.isdecimal() for word in words):
        return "number"
    return "uuid" if all(re.match(r"(GPU|MIG)-", word) for word in words) else "other"


def _opens(device: Path) -> bool:
    """Whether the job's cgroup lets this process use the device; permissions of the file do not say."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _numa(allowed: frozenset[int], system: Path) -> tuple[NumaDomain, ...]:
    """The NUMA domains in which the process has CPUs."""
    found = (_domain(folder, allowed) for folder in system.glob("node/node[0-9]*"))
    return tuple(sorted((one for one in found if one.cpus), key=lambda one: one.number))


def _of_machine(system: Path) -> tuple[int, ...]:
    folders = sorted(system.glob("node/node[0-9]*"), key=number_of)
    counts = (len(parse_cpu_list(read_text(folder / "cpulist"))) for folder in folders)
    return tuple(count for count in counts if count)


def _domain(folder: Path, allowed: frozenset[int]) -> NumaDomain:
    return NumaDomain(
        number=number_of(folder),
        cpus=tuple(sorted(allowed & parse_cpu_list(read_text(folder / "cpulist")))),
        memory=node_memory(folder),
    )
