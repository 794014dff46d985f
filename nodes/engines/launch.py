"""What an engine is told to start, and the protocol of the adapters that start it."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...core.logs.failures import KnownFailure
from ...core.logs.text import LogFormat
from ...core.machine.cpus import format_cpu_list
from ...core.spec.model import ModelSpec, SpeculativeSpec
from ...core.spec.pool import PoolSpec
from ...core.workers.layout import Fault, Layout
from ..staging.caches import NodeCaches
from .request import PoolRequest


@dataclass(frozen=True, kw_only=True)
class EngineLaunch:
    """One engine process of one worker: it starts the ranks of its node, and divides `threads` among them."""

    model: ModelSpec  # `path` is a directory by now, perhaps a copy on this node's disk
    pool: PoolSpec
    address: str  # IPv4 address of this node, for messages between ranks
    socket: Path  # Unix socket at which the process of node rank 0 serves HTTP, and nowhere else
    key: str  # drawn for this launch: the engine refuses whoever does not have it, and no client has it
    private: Path  # folder that only the user can read, for what must not stand in a process list
    threads: int
    rank_cpus: tuple[tuple[int, ...], ...] = ()  # for the threads of each rank here; empty: the engine decides
    node_rank: int = 0
    rendezvous: str | None = None  # HOST:PORT on node rank 0, where there are several ranks
    rank_secret: str = ""  # by which the ranks of one worker know each other, where there are several
    speculative: SpeculativeSpec | None = None  # `draft_model` is a directory by now

    caches: NodeCaches | None = None  # of compiled code, where they are not in their usual places

    @property
    def ranks(self) -> int:
        """Processes that compute one model together, on all nodes."""
        return self.pool.layout.ranks

    @property
    def python(self) -> str:
        """The Python interpreter that starts the engine; in a container a path or name there."""
        is_image_s = self.pool.container is not None and self.pool.engine != "native"
        return self.pool.python or ("python3" if is_image_s else sys.executable)


class EngineAdapter(Protocol):
    """All that slurminfer knows of one kind of engine: how to start it, what it refuses, how to read its logs.

    A new engine needs one module with such a class and a line in table.py.
    """

    @property
    def default_capacity(self) -> int:
        """Requests computed at once where the spec says nothing."""

    @property
    def in_flight_metrics(self) -> tuple[str, ...]:
        """Gauges of `/metrics` whose sum is zero when the engine is idle."""

    @property
    def kv_cache_dtypes(self) -> tuple[str, ...]:
        """Valid values of a model's `kv_cache_dtype` key; "auto" must be one of them."""

    @property
    def log_format(self) -> LogFormat:
        """How its log is written, for finding the line that says why it has failed."""

    @property
    def known_failures(self) -> Sequence[KnownFailure]:
        """The failures that it is known for, by the lines of its log; those of the machine are known for all."""

    def check(self, request: PoolRequest) -> None:
        """Raise SpecError where this engine cannot do what is asked; layout and `kv_cache_dtype` are checked apart."""

    def layout_fault(self, layout: Layout) -> Fault | None:
        """What is wrong with a layout of ranks for this engine only: the key and why. None for one that works.

        One pipeline stage on each node, without sequence_parallel, must work.
        """

    def argv(self, launch: EngineLaunch) -> list[str]:
        """The command line; the API key must not stand in it."""

    def env(self, launch: EngineLaunch) -> dict[str, str]:
        """What the engine needs in its environment besides what the agent has."""


def threads_bind(
    launch: EngineLaunch, variable: str, ranks: int, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The variable by which an engine on CPUs binds the threads of its ranks, such as "0-31|32-63".

    Empty where the user has set it, or the launch leaves it to the engine.

    Args:
        ranks: how many the variable must name: those of other nodes too, whose CPUs are taken to be the same.
    """
    if not launch.rank_cpus or variable in environ or variable in launch.pool.env:
        return {}
    here = launch.rank_cpus
    return {variable: rank_list([here[rank % len(here)] for rank in range(ranks)])}


def rank_list(rank_cpus: Iterable[Iterable[int]]) -> str:
    """The CPUs of ranks as engines read them: "0-31|32-63"."""
    return "|".join(map(format_cpu_list, rank_cpus))


def flags(**options: object) -> list[str]:
    """`--long-name value` for every option that is not None."""
    given = ((name.replace("_", "-"), value) for name, value in options.items() if value is not None)
    return [word for name, value in given for word in (f"--{name}", str(value))]
