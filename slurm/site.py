"""What Slurm says of the cluster and its nodes: its version and settings, and the GPUs of each partition."""

import re
from collections import Counter
from collections.abc import Mapping

import msgspec

from ..core.errors import SlurmError
from ..core.site.doctor import ClusterProfile, GpuKind
from .client import ask
from .values import NOTHING, items, number

_MIB = 1 << 20
# A line of "scontrol show config".
_SETTING = re.compile(r"^(\w+(?:\[\d+\])?)\s*= (.*)$", re.MULTILINE)
# GRES of a node: "gpu:h100:8(S:0-1)" or "gpu:8"; others than GPUs, such as "tmpdisk:100", are of no interest here.
_GPU = re.compile(r"\bgpu:(?:(?P<type>[^:,()\s]+):)?(?P<count>\d+)(?:\([^)]*\))?")
_NODES = ("sinfo", "--noheader", "--all", "--Node", "--format=%R|%c|%m|%G|%f")


class NodeKinds(msgspec.Struct, frozen=True, kw_only=True):
    """What the nodes of a partition have; of several kinds, the least. Memory in bytes."""

    nodes: int
    cpus: int
    memory: int
    gpus: tuple[GpuKind, ...] = ()
    features: tuple[str, ...] = ()


def cluster(qos: tuple[str, ...] = ()) -> ClusterProfile:
    """The cluster's settings; `qos` are names that are known of it. Raises SlurmError."""
    return parse_config(ask(["scontrol", "show", "config"]), qos, has_pyxis())


def node_kinds() -> dict[str, NodeKinds]:
    """What the nodes of each partition have. Raises SlurmError."""
    return parse_nodes(ask(_NODES))


def has_pyxis() -> bool:
    """Whether srun knows the options of Pyxis, NVIDIA's plugin for containers."""
    try:
        return "--container-image" in ask(["srun", "--help"])
    except SlurmError:
        return False


def parse_config(text: str, qos: tuple[str, ...], pyxis: bool) -> ClusterProfile:
    """The settings that matter here, of "scontrol show config" of Slurm 20.11 to 25.05."""
    found: Mapping[str, str] = {key: value.strip() for key, value in _SETTING.findall(text)}

    def word(key: str) -> str:
        value = found.get(key, "")
        return "" if value in NOTHING else value

    def first_number(key: str) -> int | None:
        return number(word(key).partition(" ")[0])  # "300 sec"

    return ClusterProfile(
        name=word("ClusterName"),
        slurm_version=word("SLURM_VERSION"),
        has_accounting=word("AccountingStorageType").endswith("slurmdbd"),
        enforces_accounts="associations" in word("AccountingStorageEnforce").lower(),
        preempt_signal="preempt_send_user_signal" in word("SlurmctldParameters"),
        min_job_age_s=first_number("MinJobAge"),
        kill_wait_s=first_number("KillWait"),
        max_jobs=first_number("MaxJobCount"),
        max_array=first_number("MaxArraySize"),
        memory_per_cpu_mb=first_number("DefMemPerCPU"),
        memory_per_node_mb=first_number("DefMemPerNode"),
        selects_memory="MEMORY" in word("SelectTypeParameters").upper(),
        has_pyxis=pyxis,
        qos=qos,
    )


def parse_nodes(text: str) -> dict[str, NodeKinds]:
    """Rows of partition|CPUs|MiB|GRES|features, one for each node in each partition."""
    rows = (line.split("|") for line in text.splitlines() if line.count("|") == 4)
    of_partition: dict[str, list[list[str]]] = {}
    for name, *row in rows:
        of_partition.setdefault(name, []).append(row)
    return {name: _kinds(nodes) for name, nodes in of_partition.items()}


def _kinds(rows: list[list[str]]) -> NodeKinds:
    counted: Counter[tuple[str, int]] = Counter()
    for _, _, gres, _ in rows:
        counted.update((found["type"] or "", int(found["count"])) for found in _GPU.finditer(gres))
    return NodeKinds(
        nodes=len(rows),
        cpus=min(number(row[0].rstrip("+")) or 0 for row in rows),
        memory=min(number(row[1].rstrip("+")) or 0 for row in rows) * _MIB,
        gpus=tuple(GpuKind(type=kind, per_node=count, nodes=nodes) for (kind, count), nodes in sorted(counted.items())),
        features=tuple(sorted({feature for row in rows for feature in items(row[3])})),
    )
