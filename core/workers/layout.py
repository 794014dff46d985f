"""How the ranks of one worker lie on its nodes, and which layouts are refused.

Ranks are numbered stage by stage, and the nodes take them in turn, as many on each.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import SpecError
from .parallel import ParallelDegrees

_LARGEST = 1024  # values of a key that are looked through for a layout that works
_MOST_SUGGESTIONS = 3
_RANKS = "ranks = tensor_parallel x sequence_parallel x pipeline_parallel"


@dataclass(frozen=True, kw_only=True)
class Layout(ParallelDegrees):
    """The ranks of one worker on its nodes, by the keys of its pool that decide how they lie there."""

    gpus_per_node: int  # 0: on CPUs
    cpus_per_task: int
    nodes: int

    @property
    def ranks_per_node(self) -> int:
        """Ranks on each node, where the nodes share them evenly."""
        return self.ranks // self.nodes


Fault = tuple[str, str]  # the key of a layout that is wrong, and why
# What one engine refuses besides what no engine can do. One pipeline stage on each node it must not refuse: that is
# suggested where no change of a single key is enough.
LayoutRule = Callable[[Layout], Fault | None]


def check_layout(pool: str, layout: Layout, engine_rule: LayoutRule) -> None:
    """Raise SpecError for a layout that cannot work; it names the nearest that can.

    Args:
        pool: the pool's key in the spec, such as `pool[0]`.
        layout: how the ranks lie on the nodes.
        engine_rule: the fault, or None, that the pool's engine finds in a layout.
    """

    def fault_of(layout: Layout) -> Fault | None:
        return engine_rule(layout) or _fault(layout)

    found = fault_of(layout)
    if found is not None:
        key, why = found
        raise SpecError(f"{pool}.{key}", getattr(layout, key), f"{why}; nearest: {_nearest(layout, fault_of)}")


def _fault(layout: Layout) -> Fault | None:
    """What no engine can do; None for a layout that works."""
    ranks, nodes, gpus = layout.ranks, layout.nodes, layout.gpus_per_node
    if gpus and ranks != nodes * gpus:
        return "tensor_parallel", f"{_RANKS} = {ranks}, but nodes x gpus_per_node = {nodes * gpus}"
    if ranks % nodes:
        return "nodes", f"so many nodes cannot share {_RANKS} = {ranks} evenly"
    if not gpus and layout.ranks_per_node > layout.cpus_per_task:
        return "cpus_per_task", f"expected a CPU for each of the {layout.ranks_per_node} ranks of a node"
    return None


def _nearest(layout: Layout, fault_of: LayoutRule) -> str:
    """The keys whose change alone makes the layout work, least change first."""
    per_node = "gpus_per_node" if layout.gpus_per_node else "cpus_per_task"
    shares_tokens = layout.sequence_parallel > 1  # nobody wants it for the sake of a number
    keys = ["tensor_parallel", *["sequence_parallel"] * shares_tokens, "pipeline_parallel", per_node, "nodes"]
    found = (_least_change(layout, key, fault_of) for key in keys)
    changes = sorted((change for change in found if change is not None), key=lambda change: change[0])
    if not changes:
        alone = " and sequence_parallel = 1" * shares_tokens
        return f"tensor_parallel = {getattr(layout, per_node)} with pipeline_parallel = {layout.nodes}{alone}"
    return ", or ".join(words for _, words in changes[:_MOST_SUGGESTIONS])


def _least_change(layout: Layout, key: str, fault_of: LayoutRule) -> tuple[float, str] | None:
    """By how much `key` must change at least, as a ratio's logarithm, and into what; None if that is not enough."""
    value = getattr(layout, key)
    working = (other for other in range(1, _LARGEST + 1) if fault_of(_with(layout, key, other)) is None)
    changes = [(round(abs(math.log(other / value)), 6), f"{key} = {other}") for other in working]
    return min(changes, key=lambda change: change[0], default=None)


def _with(layout: Layout, key: str, value: int) -> Layout:
    changes: dict[str, Any] = {key: value}
    return replace(layout, **changes)
