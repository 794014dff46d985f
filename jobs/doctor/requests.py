"""Which job looks at a partition: as much as there is to see, as little as starts soon. Pure, but for the forecast."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import SlurmError
from ...core.job import JobRequest
from ...slurm.forecast import Forecast
from ...slurm.limits import Partition
from ...slurm.site import NodeKinds
from .entry import DoctorEntry

CPUS = 2  # more than one, to see whether a job is confined to what it has asked for
_TIME_S = 300
_LITTLE_MEMORY = "1G"  # for sites that refuse jobs without --mem


@dataclass(frozen=True)
class Ask:
    """What a job asks for, besides its partition."""

    nodes: int
    gpu_option: str = ""
    mem: str | None = None


@dataclass(frozen=True)
class Plan:
    """The job that looks at a partition, or why there is none."""

    request: JobRequest | None
    ask: Ask
    reason: str = ""


def asks(partition: Partition, kinds: NodeKinds) -> Iterator[Ask]:
    """What to ask for, what shows most first: two nodes show who reaches whom, a GPU how Slurm hands it over."""
    most = min(kinds.nodes, partition.max_nodes or kinds.nodes, 2)
    for nodes in range(most, 0, -1):
        for option in _gpu_options(kinds):
            yield Ask(nodes, option)
    for nodes in range(most, 0, -1):
        yield Ask(nodes)
    yield Ask(1, mem=_LITTLE_MEMORY)


def request(partition: Partition, kinds: NodeKinds, ask: Ask, folder: Path, account: str | None) -> JobRequest:
    """The job for one of them."""
    name, _, value = ask.gpu_option.removeprefix("--").partition("=")
    return JobRequest(
        name="doctor",
        role="doctor",
        entry=DoctorEntry(folder=folder, tasks=ask.nodes, account=account),
        log_folder=folder,
        nodes=ask.nodes,
        cpus_per_task=min(CPUS, max(kinds.cpus, 1)),
        gpus_per_node=int(value) if name == "gpus-per-node" else 0,
        mem=ask.mem,
        time_s=min(_TIME_S, partition.max_time_s or _TIME_S),
        partition=partition.name,
        account=account,
        slurm={"no-requeue": True, **({name: value} if name == "gres" else {})},
    )


def choose(
    candidates: Sequence[tuple[Ask, JobRequest]], forecast: Callable[[JobRequest], Forecast], latest: float
) -> Plan:
    """The first that starts by `latest` (Unix time), else the one that starts first; Slurm's reason if none would.

    Slurm may not answer to a forecast at all: then the least is tried.
    """
    starts: list[tuple[float, Ask, JobRequest]] = []
    reason = ""
    for ask, job in candidates:
        try:
            found = forecast(job)
        except SlurmError:
            last_ask, last = candidates[-1]
            return Plan(last, last_ask)
        reason = found.reason or reason
        if found.starts_at is not None and found.starts_at <= latest:
            return Plan(job, ask)
        if found.starts_at is not None:
            starts.append((found.starts_at, ask, job))
    if not starts:
        return Plan(None, candidates[-1][0], reason)
    _, ask, job = min(starts, key=lambda start: start[0])
    return Plan(job, ask)


def _gpu_options(kinds: NodeKinds) -> Iterator[str]:
    """How to ask for a GPU: as slurminfer does for a worker, and as clusters without select/cons_tres want it."""
    if not kinds.gpus:
        return
    yield "--gpus-per-node=1"
    types = [kind.type for kind in kinds.gpus if kind.type]
    yield "--gres=gpu:1"
    yield from (f"--gres=gpu:{kind}:1" for kind in types[:1])
