"""What partitions and QOS allow: walltime, nodes, and what happens to a job that is preempted."""

import re
from collections.abc import Iterable, Mapping

import msgspec

from ..core.errors import SlurmError
from .client import ask
from .hostlist import expand
from .values import duration_s, items, number, pairs

_ENFORCED = re.compile(r"^AccountingStorageEnforce\s*=.*\b(?:limits|safe)\b", re.MULTILINE)


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """A partition's limits. None: no limit."""

    name: str
    state: str = "UP"  # UP, DOWN, DRAIN (takes no new jobs) or INACTIVE
    is_default: bool = False
    nodes: str = ""  # in Slurm's notation
    max_time_s: int | None = None
    default_time_s: int | None = None  # what a job gets that asks for no time; None: max_time_s
    max_nodes: int | None = None
    preempt_mode: str = "OFF"  # what happens to its jobs where those of another preempt them
    grace_s: int = 0  # from the warning of a preempted job to its end
    qos: str = ""  # whose limits count for all of its jobs

    @property
    def takes_jobs(self) -> bool:
        """Whether jobs may be submitted to it and start in it."""
        return self.state == "UP"

    @property
    def node_names(self) -> tuple[str, ...]:
        """The names of its nodes, one by one."""
        return expand(self.nodes)


def partitions() -> dict[str, Partition]:
    """All partitions that this user may see, by name. Raises SlurmError."""
    return parse_partitions(ask(["scontrol", "show", "partition", "--oneliner", "--all"]))


def qos_names() -> list[str]:
    """The names of all QOS, sorted; none on a cluster without accounting, or where it does not answer."""
    try:
        return sorted(ask(["sacctmgr", "--noheader", "--parsable2", "show", "qos", "format=Name"]).split())
    except SlurmError:
        return []


def qos_limits() -> dict[str, int]:
    """MaxWall in seconds of each QOS that has one; none where Slurm does not enforce limits. Raises SlurmError."""
    if not _ENFORCED.search(ask(["scontrol", "show", "config"])):
        return {}
    return parse_qos(ask(["sacctmgr", "--noheader", "--parsable2", "show", "qos", "format=Name,MaxWall"]))


def parse_qos(text: str) -> dict[str, int]:
    """Rows of name|MaxWall."""
    rows = (line.split("|") for line in text.splitlines() if line.count("|") == 1)
    return {name: seconds for name, limit in rows if (seconds := duration_s(limit)) is not None}


def named(partitions: Mapping[str, Partition], names: str | None) -> list[Partition]:
    """The partitions that a job may start in, of names with commas between; None for the default one."""
    if names is None:
        return [one for one in partitions.values() if one.is_default]
    return [partitions[name] for name in names.split(",") if name in partitions]


def longest_allowed_s(partitions: Iterable[Partition], qos: Mapping[str, int], name: str = "") -> int | None:
    """The longest walltime limit with which a job may start in one of the partitions; None: there is no bound.

    Args:
        partitions: those that the job names.
        qos: the limits of those QOS that have one, in seconds.
        name: the QOS of the job; empty where it names none.
    """
    bounds = [
        [bound for bound in (one.max_time_s, qos.get(one.qos), qos.get(name)) if bound is not None]
        for one in partitions
    ]
    return max((min(found) for found in bounds), default=None) if all(bounds) else None


def parse_partitions(text: str) -> dict[str, Partition]:
    """One partition in each line."""
    found = (_partition(pairs(line)) for line in text.splitlines() if line.startswith("PartitionName="))
    return {one.name: one for one in found}


def _partition(fields: dict[str, str]) -> Partition:
    def word(key: str) -> str:
        return fields.get(key, "")

    return Partition(
        name=fields["PartitionName"],
        state=word("State"),
        is_default=word("Default") == "YES",
        nodes="" if word("Nodes") == "(null)" else word("Nodes"),
        max_time_s=duration_s(word("MaxTime")),
        default_time_s=duration_s(word("DefaultTime")),
        max_nodes=number(word("MaxNodes")),
        preempt_mode=word("PreemptMode"),
        grace_s=number(word("GraceTime")) or 0,
        qos="".join(items(word("QoS"))),
    )
