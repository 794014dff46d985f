"""Which GPU each rank of this node gets, and on which CPUs the ranks run beside their GPUs.

Ranks take the GPUs in the order of CUDA_VISIBLE_DEVICES: those of one tensor-parallel group follow each other. Where
NVLink connects some of a job's GPUs and not all, the order is one in which each group is connected by it; pipeline
stages and sequence ranks, which exchange less, may lie across.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ....core.machine.cpus import by_core, cpu_ids
from ....core.machine.gpu_links import GpuLinks, in_groups, parse_links, without_nvlink
from ....core.machine.nvidia import VISIBLE, ask_smi
from ....core.spec.pool import PoolSpec

_TOPOLOGY = ("nvidia-smi", "topo", "-m")
_UUIDS = ("nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader")
_LEAST_CORES = 4  # beside a GPU, for a rank to be kept to them: loading, tokenizing and scheduling have threads too

Ask = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class GpuOrder:
    """What was found. Where nothing was, all is as it was."""

    visible: str | None = None  # CUDA_VISIBLE_DEVICES; None: as it is
    rank_cpus: tuple[tuple[int, ...], ...] = ()  # of each rank here; empty: they run everywhere
    remark: str = ""  # of a tensor-parallel group without NVLink


def gpu_order(
    pool: PoolSpec,
    environ: Mapping[str, str],
    ask: Ask = ask_smi,
    allowed: frozenset[int] | None = None,
) -> GpuOrder:
    """The order of this node's GPUs, and the CPUs beside them, of those that are `allowed`; by default this process's.

    Raises nothing: where GPUs are not told of, or named in a way that cannot be found again (MIG), they stay in order.
    """
    count = pool.gpus_per_node
    links = parse_links(ask(_TOPOLOGY)) if count else None
    if links is None:
        return GpuOrder()
    names = environ[VISIBLE].split(",") if environ.get(VISIBLE) else [str(number) for number in range(links.count)]
    numbers = _numbers(names, links.count, ask)
    if numbers is None or len(numbers) != count:
        return GpuOrder()
    size = min(pool.tensor_parallel, count)
    if count % size:  # a group goes on with the next node's GPUs
        return GpuOrder(rank_cpus=_beside(links, numbers, allowed))
    ordered = in_groups(links, numbers, size)
    return GpuOrder(
        visible=None if ordered == numbers else ",".join(names[numbers.index(number)] for number in ordered),
        rank_cpus=_beside(links, ordered, allowed),
        remark=_remark(links, ordered, size),
    )


def _numbers(names: Sequence[str], count: int, ask: Ask) -> list[int] | None:
    """The GPUs' numbers in nvidia-smi; None where a name is not found."""
    if all(name.isdecimal() for name in names):
        numbers = [int(name) for name in names]
        return numbers if max(numbers) < count else None
    uuids = ask(_UUIDS).split()
    found = [[number for number, uuid in enumerate(uuids) if uuid.startswith(name)] for name in names]  # or shortened
    return [number for (number,) in found] if all(len(numbers) == 1 for numbers in found) else None


def _beside(links: GpuLinks, gpus: Sequence[int], allowed: frozenset[int] | None) -> tuple[tuple[int, ...], ...]:
    """The job's CPUs beside each GPU; nothing unless there are enough of them at every one."""
    ids = cpu_ids(allowed)
    beside = [links.cpus.get(gpu, frozenset()) & ids for gpu in gpus]
    sharing = [beside.count(cpus) for cpus in beside]
    is_enough = all(len(by_core(cpus)) >= _LEAST_CORES * ranks for cpus, ranks in zip(beside, sharing, strict=True))
    return tuple(tuple(sorted(cpus)) for cpus in beside) if is_enough else ()


def _remark(links: GpuLinks, gpus: Sequence[int], size: int) -> str:
    apart = without_nvlink(links, gpus, size)
    if apart is None:
        return ""
    return (
        f"tensor_parallel = {size}: no NVLink connects GPUs {apart[0]} and {apart[1]} of one group "
        f"({links.word(*apart) or 'unknown link'}), which slows every layer"
    )
