"""What one machine has and gives to a process on it: a compute node inside of a job, or the machine with the commands.

Sizes are bytes. What could not be found out is None or empty.
"""

from typing import Literal

import msgspec

VisibleBy = Literal["none", "number", "uuid", "other"]


class NumaDomain(msgspec.Struct, frozen=True, kw_only=True):
    """A NUMA domain, with those of its CPUs that the process may run on."""

    number: int
    cpus: tuple[int, ...]
    memory: int | None = None


class Processor(msgspec.Struct, frozen=True, kw_only=True):
    """CPUs: of the machine, and of the process."""

    name: str
    cpus_of_machine: int
    cpus: tuple[int, ...]  # that the process may run on
    cores: int
    numa: tuple[NumaDomain, ...]
    numa_of_machine: tuple[int, ...] = ()  # CPUs of each NUMA domain of the machine
    instructions: tuple[str, ...] = ()  # of those that matter to inference, such as avx512f


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Main memory: of the machine, and what bounds the process."""

    of_machine: int
    cgroup_limit: int | None = None
    slurm_limit: int | None = None  # what the job asked for, or got by default


class Gpus(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs: what Slurm and the driver show the process."""

    visible_devices: str | None = None  # CUDA_VISIBLE_DEVICES
    visible_by: VisibleBy = "none"
    device_files: int = 0  # NVIDIA's in /dev that the process may open
    names: tuple[str, ...] = ()  # as nvidia-smi tells


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface that is up."""

    name: str
    addresses: tuple[str, ...]  # IPv4 and IPv6; link-local ones with their zone, such as fe80::1%ib0
    speed_mbps: int | None = None
    mtu: int | None = None


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """How the machine is reached."""

    host: str
    address: str  # what the other nodes are told, by core/net/address.py; empty: it could not be told
    host_addresses: tuple[str, ...]  # what the host's name resolves to, here
    interfaces: tuple[Interface, ...]
    infiniband: tuple[str, ...] = ()  # devices with an active port, such as "mlx5_0: 200 Gb/sec (2X HDR)"


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that something is written into."""

    purpose: str  # what uses it: a variable's name, or words
    path: str
    is_writable: bool
    filesystem: str = ""  # its type, such as nfs4 or tmpfs
    is_shared: bool = False  # with other machines
    is_memory: bool = False
    may_execute: bool = True
    size: int | None = None
    free: int | None = None
    quota: int | None = None  # this user's limit
    quota_used: int | None = None
    write_bytes_per_s: float | None = None


class Software(msgspec.Struct, frozen=True, kw_only=True):
    """Programs and limits that matter to what runs here."""

    python: str
    glibc: str
    kernel: str
    compiler: str | None = None  # g++, which the native engine compiles its library with
    containers: dict[str, str] = {}  # runtime to version
    open_files: int | None = None  # RLIMIT_NOFILE; None: no limit
    locked_memory: int | None = None  # RLIMIT_MEMLOCK, which RDMA needs; None: no limit


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """All of one machine."""

    processor: Processor
    memory: Memory
    gpus: Gpus
    network: Network
    folders: tuple[Folder, ...]
    software: Software
