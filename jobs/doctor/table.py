"""What the doctor has learned, for a terminal."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from rich.text import Text

from ...core.site.doctor import ClusterProfile, PartitionProfile, SiteProfile
from ...core.site.machine import Folder, Machine
from ..terminal.console import stdout
from ..terminal.text import shown
from .findings import findings
from .routes import open_interfaces

_GIB = 1 << 30
_NAMES = 24  # columns of the longest name


def print_site(profile: SiteProfile, kept: Path) -> None:
    """Print all of it, and where it is kept."""
    _print("this machine", machine_rows(profile.here))
    if profile.cluster is not None:
        _print(f"Slurm {profile.cluster.slurm_version}, cluster {profile.cluster.name}", cluster_rows(profile.cluster))
    for partition in profile.partitions:
        _print(f"partition {partition.name}", partition_rows(partition, profile.here))
    for text in profile.skipped:
        stdout.print(f"not looked at: {text}")
    found = findings(profile)
    if found:
        stdout.print(Text("\nWhat to know", style="bold"))
    for one in found:
        stdout.print(f"- {', '.join(one.where)}: {one.what}" + (f". {_sentence(one.advice)}" if one.advice else ""))
    stdout.print(f"\nkept in {kept}")


def cluster_rows(cluster: ClusterProfile) -> Iterator[tuple[str, str]]:
    """Name and value of what holds for all partitions."""
    yield "accounting", "yes" if cluster.has_accounting else "no"
    yield "memory", "shared out among jobs" if cluster.selects_memory else "not shared out: jobs get what there is"
    defaults = (("CPU", cluster.memory_per_cpu_mb), ("node", cluster.memory_per_node_mb))
    yield "default memory", ", ".join(f"{size} MiB a {unit}" for unit, size in defaults if size) or "all of the node"
    yield "QOS", ", ".join(cluster.qos) or "none"
    yield "Pyxis", "yes" if cluster.has_pyxis else "no"


def partition_rows(partition: PartitionProfile, here: Machine) -> Iterator[tuple[str, str]]:
    """Name and value of what is known of a partition, but for folders that are the same on this machine."""
    memory = f", {_size(partition.memory_per_node)}" if partition.memory_per_node else ""
    yield "nodes", f"{partition.nodes} with {partition.cpus_per_node or '?'} CPUs{memory}"
    kinds = (" ".join((str(kind.per_node), kind.type, f"on {kind.nodes} nodes")) for kind in partition.gpus)
    yield "GPUs", "; ".join(kinds) or "none"
    yield "longest job", _time(partition.max_time_s)
    if partition.outcome != "seen":
        yield "not seen", partition.reason
    if partition.seen_at is not None:
        what = f"{partition.asked_cpus} CPUs" + (f", {partition.gpu_option}" if partition.gpu_option else "")
        waited = f"after {partition.waited_s or 0:.0f} s"
        yield "seen", f"by job {partition.job} with {what}, {_date(partition.seen_at)}, {waited}"
    for report in partition.reports[:1]:
        yield from machine_rows(report.machine, here)
        yield "may submit jobs", {True: "yes", False: f"no: {report.submit_answer}", None: "?"}[report.may_submit]
        if report.clock_offset_s is not None:
            yield "clock", f"{report.clock_offset_s:+.3f} s (± {report.clock_error_s or 0:.3f})"
    if len(partition.reports) > 1:
        links = (f"{name} ({', '.join(addresses)})" for name, addresses in open_interfaces(partition).items())
        yield "between nodes", "; ".join(links) or "no connection"


def machine_rows(machine: Machine, other: Machine | None = None) -> Iterator[tuple[str, str]]:
    """Name and value of what a machine has, and gives to a process; without folders that another one sees alike."""
    processor, memory, software = machine.processor, machine.memory, machine.software
    yield "host", f"{machine.network.host} ({machine.network.address})"
    yield "processor", " ".join((processor.name, *processor.instructions))
    numa = ", ".join(f"{len(one.cpus)} in NUMA domain {one.number}" for one in processor.numa)
    yield "CPUs of a process", f"{len(processor.cpus)} of {processor.cpus_of_machine}: {numa or 'no NUMA domains told'}"
    limits = [("cgroup", memory.cgroup_limit), ("Slurm", memory.slurm_limit)]
    said = ", ".join(f"{_size(limit)} by {who}" for who, limit in limits if limit is not None)
    yield "memory of a process", f"{said or 'no limit'}, of {_size(memory.of_machine)}"
    if machine.gpus.visible_devices is not None or machine.gpus.device_files:
        names = ", ".join(dict.fromkeys(machine.gpus.names)) or f"{machine.gpus.device_files} device files"
        yield "GPUs of a process", f"CUDA_VISIBLE_DEVICES={machine.gpus.visible_devices or ''}; {names}"
    links = (one for one in machine.network.interfaces if one.name != "lo")
    yield "interfaces", "; ".join(f"{one.name} {' '.join(one.addresses)}" for one in links) or "none"
    if machine.network.infiniband:
        yield "InfiniBand", "; ".join(machine.network.infiniband)
    same = {(folder.purpose, folder.path, folder.filesystem) for folder in other.folders} if other else set()
    for folder in machine.folders:
        if folder.write_bytes_per_s or (folder.purpose, folder.path, folder.filesystem) not in same:
            yield folder.purpose, _folder(folder)
    containers = ", ".join(f"{name} {version}".rstrip() for name, version in software.containers.items())
    yield "software", f"Python {software.python}, {software.glibc}, {software.compiler or 'no g++'}"
    yield "containers", containers or "none"


def _print(title: str, rows: Iterator[tuple[str, str]]) -> None:
    stdout.print(Text(shown(title), style="bold"))
    for name, value in rows:
        stdout.print(f"  {name:<{_NAMES}} {value}")


def _folder(folder: Folder) -> str:
    words = [folder.path, folder.filesystem]
    words += ["shared" if folder.is_shared else "in memory" if folder.is_memory else "of this machine"]
    if folder.free is not None:
        words.append(f"{_size(folder.free)} free")
    if folder.quota is not None:
        words.append(f"quota {_size(folder.quota)}, {_size(folder.quota_used or 0)} used")
    if folder.write_bytes_per_s is not None:
        words.append(f"writes {folder.write_bytes_per_s / 1e6:.0f} MB/s")
    if not folder.is_writable:
        words.append("cannot be written")
    return ", ".join(word for word in words if word)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / (1 << 20):.0f} MiB"


def _time(seconds: int | None) -> str:
    return "no limit" if seconds is None else str(timedelta(seconds=seconds))


def _date(unix: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix))
