"""The sandbox's configuration files as text. Pure.

Sources: slurm.conf(5), slurmdbd.conf(5), gres.conf(5), cgroup.conf(5) of Slurm 22.05.
"""

import shlex
from collections.abc import Sequence

import msgspec

from .layout import HEAD, SandboxLayout

CPUS_PER_NODE = 64
HEAD_DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld")

_SLURM_CONF = """\
ClusterName=sandbox
SlurmctldHost={head}({head_address})
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its credential has expired: two minutes by default.
AuthInfo=socket={munge_socket},cred_expire=10
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool/%n
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd-%n.pid
SlurmctldLogFile={log}/slurmctld.log
SlurmdLogFile={log}/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=verbose
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=1
SlurmdTimeout=10
SlurmctldTimeout=10
InactiveLimit=0
KillWait=5
MinJobAge=300
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
# The nodes have as many CPUs and as much memory as is written here, not as the machine has.
SlurmdParameters=config_overrides
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={head_address}
AccountingStoragePort={accounting_port}
AccountingStoragePass={munge_socket}
AccountingStorageTRES=gres/gpu,gres/gpu:h100,gres/gpu:a100
{nodes}
PartitionName=cpu  Nodes=ALL Default=YES PriorityTier=1  PreemptMode=OFF DefaultTime=5 MaxTime=1-0
PartitionName=gpu  Nodes=ALL PriorityTier=1  PreemptMode=OFF DefaultTime=5 MaxTime=1-0
PartitionName=low  Nodes=ALL PriorityTier=1  PreemptMode=REQUEUE GraceTime=8 DefaultTime=5 MaxTime=1-0
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF DefaultTime=5 MaxTime=1-0
"""

_SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={munge_socket}
DbdHost={head}
DbdAddr={head_address}
DbdPort={accounting_port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
LogFile={log}/slurmdbd.log
PidFile={run}/slurmdbd.pid
DebugLevel=info
"""


# Nothing here uses cgroups, but slurmd loads a plugin all the same. This one asks nothing of the machine; the other
# wants systemd, and finding out which fits wants cgroups mounted.
CGROUP_CONF = "CgroupPlugin=cgroup/v1\n"


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon in the foreground, and the command that succeeds once it answers."""

    argv: Sequence[str]
    ready: Sequence[str] = ("true",)


def slurm_conf(layout: SandboxLayout) -> str:
    """`slurm.conf`: the cluster, its nodes and partitions."""
    return _SLURM_CONF.format(
        **_values(layout), nodes="\n".join(_node_line(layout, name) for name in layout.node_names)
    )


def slurmdbd_conf(layout: SandboxLayout) -> str:
    """`slurmdbd.conf`: accounting."""
    return _SLURMDBD_CONF.format(**_values(layout))


def gres_conf(layout: SandboxLayout) -> str:
    """`gres.conf`: this machine's GPUs, or those that are character devices like /dev/null."""
    lines = (
        f"NodeName={name} AutoDetect=off Name=gpu {_type(layout, name)}File={file}"
        for name in layout.node_names
        for file in layout.gpu_files(name)
    )
    return "".join(f"{line}\n" for line in lines)


def _type(layout: SandboxLayout, name: str) -> str:
    return "" if layout.gpus else f"Type={layout.gpu_type(name)} "


def hosts(layout: SandboxLayout, host_file: str) -> str:
    """The machine's own `/etc/hosts` and the sandbox's names."""
    names = {HEAD: layout.head_address} | {name: layout.node_address(name) for name in layout.node_names}
    return host_file.rstrip("\n") + "\n" + "".join(f"{address} {name}\n" for name, address in names.items())


def enter_script(layout: SandboxLayout, mounts: str) -> str:
    """Shell script that turns fresh mount and UTS namespaces into a machine, then becomes a command.

    Its arguments are the machine's name and the command. `mounts` are shell lines.
    """
    bind = shlex.join(["mount", "--bind", str(layout.etc / "hosts"), "/etc/hosts"])
    return f'#!/bin/sh\nset -eu\numask 022\nhostname "$1"\n{bind}\n{_hide_gpus(layout)}{mounts}shift\nexec "$@"\n'


def _hide_gpus(layout: SandboxLayout) -> str:
    """Shell lines that close other nodes' GPUs, as a node's own are numbered from 0: no device opens below nodev."""
    cases = []
    for name in layout.node_names if layout.gpus else ():
        foreign = [gpu for gpu in layout.gpus if gpu not in layout.gpu_files(name)]
        lines = [["mount", "--bind", gpu, gpu] for gpu in foreign]
        lines += [["mount", "-o", "remount,bind,nodev", gpu] for gpu in foreign]
        cases += [f"{name})", *map(shlex.join, lines), ";;"]
    return "\n".join(['case "$1" in', *cases, "esac", ""])


def head_services(layout: SandboxLayout) -> list[Service]:
    """What runs on the head node, in the order in which one needs the other."""
    database = ["mariadb", "--no-defaults", f"--socket={layout.database_socket}", "-e", "select 1"]
    return [
        Service(argv=_munged(layout), ready=["munge", f"--socket={layout.munge_socket}", "-n"]),
        Service(argv=_mariadbd(layout), ready=database),
        Service(argv=["slurmdbd", "-D"], ready=["sacctmgr", "-n", "show", "cluster"]),
        Service(argv=["slurmctld", "-D"], ready=["scontrol", "ping"]),
    ]


def node_services(name: str) -> list[Service]:
    """What runs on a compute node."""
    return [Service(argv=["slurmd", "-D", "-N", name])]


def _values(layout: SandboxLayout) -> dict[str, object]:
    names = ("directory", "run", "log", "munge_socket", "head_address", "controller_port", "accounting_port")
    return {"head": HEAD} | {name: getattr(layout, name) for name in names}


def _node_line(layout: SandboxLayout, name: str) -> str:
    count = len(layout.gpu_files(name))
    gpus = f"Gres=gpu:{count} " if count else ""
    if not layout.gpus:
        kind = layout.gpu_type(name)
        gpus = f"Gres=gpu:{kind}:{count} Feature={kind} "
    return (
        f"NodeName={name} NodeHostname={name} NodeAddr={layout.node_address(name)} Port={layout.node_port(name)} "
        f"CPUs={CPUS_PER_NODE} RealMemory=500000 {gpus}State=UNKNOWN"
    )


def _munged(layout: SandboxLayout) -> list[str]:
    files = {
        "key-file": layout.munge_key,
        "socket": layout.munge_socket,
        "pid-file": layout.run / "munged.pid",
        "log-file": layout.log / "munged.log",
        "seed-file": layout.run / "munge.seed",
    }
    return ["munged", "--foreground", "--force", "--num-threads=4", *(f"--{key}={path}" for key, path in files.items())]


def _mariadbd(layout: SandboxLayout) -> list[str]:
    return [
        "mariadbd",
        "--no-defaults",
        "--user=root",
        "--skip-networking",
        f"--datadir={layout.database}",
        f"--tmpdir={layout.tmp}",
        f"--socket={layout.database_socket}",
        f"--pid-file={layout.run}/mariadbd.pid",
        f"--log-error={layout.log}/mariadbd.log",
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=16M",
        "--innodb-lock-wait-timeout=900",
        "--innodb-flush-log-at-trx-commit=0",
        "--performance-schema=OFF",
    ]
