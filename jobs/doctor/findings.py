"""What will not work at a site, and what to set, in plain words. Pure."""

import re
from collections.abc import Iterator

import msgspec

from ...core.site.doctor import ClusterProfile, NodeReport, PartitionProfile, SiteProfile
from ...core.site.machine import Folder, Machine
from ...nodes.doctor.software import glibc_version
from .routes import findings_of_routes

_OLDEST_SLURM = (20, 11)
_GIB = 1 << 30
_LITTLE_MEMORY = 8 * _GIB
_LITTLE_HOME = 20 * _GIB  # one model of 8 billion parameters in 16 bits
_LITTLE_SCRATCH = 2 * _GIB
_CLOCK_S = 2.0
_OPEN_FILES = 4096
_LOCKED_MEMORY = 1 << 30


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the user should know."""

    where: tuple[str, ...]  # partitions; "here" and "Slurm" for this machine and the whole cluster
    what: str
    advice: str = ""


def findings(profile: SiteProfile) -> tuple[Finding, ...]:
    """All that there is to say, the site's before the partitions'; what is the same of several is said once."""
    places: dict[Sentence, list[str]] = {}
    for where, said in _all(profile):
        of = places.setdefault(said, [])
        of += [where] if where not in of else []
    return tuple(Finding(where=tuple(where), what=what, advice=advice) for (what, advice), where in places.items())


Sentence = tuple[str, str]  # what is the matter, and what to do
Said = Iterator[Sentence]


def _all(profile: SiteProfile) -> Iterator[tuple[str, Sentence]]:
    yield from (("here", said) for said in _of_machine(profile.here))
    if profile.cluster is not None:
        yield from (("Slurm", said) for said in _of_cluster(profile.cluster))
    for partition in profile.partitions:
        yield from ((partition.name, said) for said in _of_partition(partition, profile))


def _of_cluster(cluster: ClusterProfile) -> Said:
    numbers = tuple(map(int, re.findall(r"\d+", cluster.slurm_version)[:2]))
    if numbers and numbers < _OLDEST_SLURM:
        yield f"Slurm {cluster.slurm_version} is older than 20.11, the oldest that slurminfer is written for", ""
    if not cluster.has_accounting:
        age = f"{cluster.min_job_age_s} s" if cluster.min_job_age_s else "a while"
        yield f"Slurm keeps no accounting, so how a job has ended is forgotten after {age}", ""


def _of_partition(partition: PartitionProfile, profile: SiteProfile) -> Said:
    if partition.outcome != "seen":
        known = (
            "what is said of its nodes is of an earlier job" if partition.reports else "nothing is known of its nodes"
        )
        yield f"{known}: {partition.reason}", ""
    yield from _of_preemption(partition)
    yield from _of_gpus(partition)
    for report in partition.reports:
        yield from _of_cpus(partition, report.machine)
        yield from _of_numa(partition, report.machine)
        yield from _of_memory(partition, report.machine)
        yield from _of_machine(report.machine)
        yield from _of_node(report, profile.here)
    yield from findings_of_routes(partition, profile.here.network.host)


def _of_preemption(partition: PartitionProfile) -> Said:
    if partition.preempt_mode in ("", "OFF"):
        return
    if partition.grace_s:
        yield (
            f"its jobs may be preempted ({partition.preempt_mode}), and then have {partition.grace_s} s to end",
            f"set drain_seconds to at most {partition.grace_s} in its pools",
        )
    else:
        yield (
            f"its jobs may be preempted ({partition.preempt_mode}) without time to end",
            "have workers elsewhere as well",
        )


def _of_gpus(partition: PartitionProfile) -> Said:
    types = [kind.type for kind in partition.gpus if kind.type]
    if len(types) > 1:
        named = [name for name in types if name in partition.features]
        advice = f"name one in the pool: slurm = {{ constraint = {named[0]!r} }}".replace("'", '"') if named else ""
        yield f"it has GPUs of several types ({', '.join(types)}), and a worker gets any of them", advice
    if partition.gpus and partition.outcome == "seen" and not partition.asked_gpus:
        yield "no GPU was looked at: none would have been free in time", "ask again later, or with a longer --patience"
    if partition.gpu_option.startswith("--gres"):
        yield f"Slurm refuses --gpus-per-node here and takes {partition.gpu_option}, as pools here now ask for", ""
    for report in partition.reports if partition.asked_gpus else ():
        yield from _of_own_gpus(report.machine)


def _of_own_gpus(machine: Machine) -> Said:
    gpus = machine.gpus
    if gpus.visible_by == "none":
        yield "a job that gets a GPU has no CUDA_VISIBLE_DEVICES", "set it in env of the pool"
    if gpus.device_files == 0:
        yield "a job that gets a GPU can open none of /dev/nvidia*", ""
    elif gpus.device_files > 1:
        yield (
            f"a job with one GPU can open {gpus.device_files}: only CUDA_VISIBLE_DEVICES keeps it to its own",
            "",
        )


def _of_cpus(partition: PartitionProfile, machine: Machine) -> Said:
    asked, got, there = partition.asked_cpus, len(machine.processor.cpus), machine.processor.cpus_of_machine
    if got < asked:
        yield f"a job that asked for {asked} CPUs may run on {got} only", ""
    elif got == there > asked:
        yield (
            f"a job is not kept to its CPUs: one that asked for {asked} may run on all {there}",
            "on nodes that you share with others: slurm = { exclusive = true }",
        )


def _of_numa(partition: PartitionProfile, machine: Machine) -> Said:
    """Of nodes on which engines compute on CPUs; where they have GPUs, ranks find the CPUs beside them."""
    domains = machine.processor.numa_of_machine
    if len(domains) < 2 or partition.gpus:
        return
    sizes = f"{domains[0]} CPUs each" if len(set(domains)) == 1 else f"{', '.join(map(str, domains))} CPUs"
    yield (
        f"its nodes have {len(domains)} NUMA domains ({sizes}), and one engine computes best within one",
        f'for each worker cpus_per_task = {min(domains)}; with whole nodes workers_per_job = "numa"',
    )


def _of_memory(partition: PartitionProfile, machine: Machine) -> Said:
    if partition.asked_memory:
        yield "Slurm refuses jobs that do not say how much memory they want", 'set mem, such as mem = "32G"'
        return
    limits = [limit for limit in (machine.memory.cgroup_limit, machine.memory.slurm_limit) if limit is not None]
    if limits and min(limits) < _LITTLE_MEMORY:
        yield f"a job that asks for no memory gets {_size(min(limits))}", 'set mem in the pool, such as mem = "32G"'


def _of_machine(machine: Machine) -> Said:
    """What holds of any machine on which engines run."""
    for folder in machine.folders:
        if folder.purpose.endswith("temporary files"):
            yield from _of_scratch(folder)
        if "SLURMINFER_HOME" in folder.purpose or "HF_HOME" in folder.purpose:
            yield from _of_home(folder)
    software = machine.software
    if software.compiler is None:
        yield (
            "there is no g++, and the native engine computes without the kernels that it compiles on CPUs",
            'load one in the pool: setup = ["module load gcc"]',
        )
    if software.open_files is not None and software.open_files < _OPEN_FILES:
        yield f"a process may have {software.open_files} files and connections open", 'setup = ["ulimit -n hard"]'
    locked = software.locked_memory
    if machine.network.infiniband and locked is not None and locked < _LOCKED_MEMORY:
        yield (
            f"InfiniBand needs locked memory, of which a process may have {_size(locked)}",
            "ask the administrators for an unlimited memlock",
        )


def _of_scratch(folder: Folder) -> Said:
    name = f"temporary files are in {folder.path}"
    advice = "set TMPDIR in env of the pool, or in setup"
    if not folder.is_writable:
        yield f"{name}, where nothing can be written", advice
        return
    if folder.is_memory:
        yield f"{name}, which is main memory and counts as the job's", advice
    if folder.is_shared:
        yield f"{name}, which is shared with other nodes ({folder.filesystem})", advice
    if folder.free is not None and folder.free < _LITTLE_SCRATCH:
        yield f"{name}, with {_size(folder.free)} free", advice
    if not folder.may_execute:
        yield f"{name}, from which no compiled code can be loaded (noexec)", advice


def _of_home(folder: Folder) -> Said:
    room = folder.free
    if folder.quota is not None:
        left = max(folder.quota - (folder.quota_used or 0), 0)
        room = left if room is None else min(room, left)
    if not folder.is_writable:
        yield f"{folder.path} ({folder.purpose}) cannot be written", "set these variables to a folder that can"
    elif room is not None and room < _LITTLE_HOME:
        yield (
            f"{folder.path} ({folder.purpose}) has room for {_size(room)}, and models are larger",
            "set these variables to folders with more room, for your shell and in env of the pools",
        )


def _of_node(report: NodeReport, here: Machine) -> Said:
    """How a node differs from this machine, on which programs are installed and jobs are submitted."""
    software, own = report.machine.software, here.software
    if report.may_submit is False:
        yield (
            f"jobs cannot be submitted from its nodes ({report.submit_answer})",
            "submit from here: what runs in a job can start no others",
        )
    offset, error = report.clock_offset_s, report.clock_error_s or 0.0
    if offset is not None and abs(offset) - error > _CLOCK_S:
        yield (
            f"the clock of {report.machine.network.host} is {offset:+.1f} s off this machine's",
            "tell the administrators",
        )
    if software.python != own.python:
        yield f"Python is {software.python} on its nodes and {own.python} here", ""
    if () < glibc_version(software.glibc) < glibc_version(own.glibc):
        yield (
            f"{software.glibc} is on its nodes and {own.glibc} here: what is compiled here may not load there",
            "install and compile in a job of this partition",
        )


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / (1 << 20):.0f} MiB"
