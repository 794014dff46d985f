"""A site as the doctor sees it, where all is well."""

from typing import Any

from slurminfer.core.site.doctor import ClusterProfile, NodeReport, PartitionProfile, Route, SiteProfile
from slurminfer.core.site.machine import (
    Folder,
    Gpus,
    Interface,
    Machine,
    Memory,
    Network,
    NumaDomain,
    Processor,
    Software,
)

GIB = 1 << 30


def folder(purpose: str, path: str, **fields: Any) -> Folder:
    given = {"is_writable": True, "filesystem": "xfs", "size": 900 * GIB, "free": 500 * GIB, **fields}
    return Folder(purpose=purpose, path=path, **given)


def network(host: str, address: str = "10.0.0.1") -> Network:
    interfaces = (Interface(name="eth0", addresses=(address, "fe80::1%eth0")),)
    return Network(host=host, address=address, host_addresses=(address,), interfaces=interfaces)


def machine(host: str = "login", **fields: Any) -> Machine:
    numa = (NumaDomain(number=0, cpus=(0, 1), memory=64 * GIB),)
    given = {
        "processor": Processor(name="EPYC", cpus_of_machine=64, cpus=(0, 1), cores=2, numa=numa),
        "memory": Memory(of_machine=128 * GIB, cgroup_limit=64 * GIB, slurm_limit=64 * GIB),
        "gpus": Gpus(visible_devices="0", visible_by="number", device_files=1, names=("H100",)),
        "network": network(host),
        "folders": (folder("SLURMINFER_HOME", "/home/u/.slurminfer"), folder("temporary files", "/tmp")),
        "software": Software(
            python="3.11.7", glibc="glibc 2.36", kernel="6.1", compiler="/usr/bin/g++", open_files=65536
        ),
        **fields,
    }
    return Machine(**given)


def report(host: str = "n1", **fields: Any) -> NodeReport:
    of_report = {name: fields.pop(name) for name in list(fields) if name in NodeReport.__struct_fields__}
    return NodeReport(machine=machine(host, **fields), **{"may_submit": True, **of_report})


def route(source: str, target: str, address: str, is_open: bool = True, interface: str = "eth0") -> Route:
    why_not = "" if is_open else "Connection refused"
    return Route(source=source, target=target, address=address, interface=interface, is_open=is_open, why_not=why_not)


def partition(name: str = "gpu", **fields: Any) -> PartitionProfile:
    given = {
        "date": 100.0, "outcome": "seen", "seen_at": 100.0, "job": "7", "asked_cpus": 2, "asked_gpus": 1,
        "gpu_option": "--gpus-per-node=1", "nodes": 2, "preempt_mode": "OFF", "reports": (report(),), **fields,
    }  # fmt: skip
    return PartitionProfile(name=name, **given)


def cluster(**fields: Any) -> ClusterProfile:
    given = {
        "name": "c", "slurm_version": "23.11.4", "has_accounting": True, "enforces_accounts": False,
        "preempt_signal": True, "min_job_age_s": 300, "kill_wait_s": 30, "max_jobs": 10_000, "max_array": 1001,
        "memory_per_cpu_mb": None, "memory_per_node_mb": None, "selects_memory": True, "has_pyxis": False, **fields,
    }  # fmt: skip
    return ClusterProfile(**given)


def site(*partitions: PartitionProfile, **fields: Any) -> SiteProfile:
    given = {"date": 100.0, "home": "/home/u/.slurminfer", "here": machine(), "cluster": cluster(), **fields}
    return SiteProfile(partitions=partitions, **given)
