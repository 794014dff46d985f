"""What an engine is told to start, and the protocol of the adapters that start it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...core.layout import Fault, Layout
from ...core.logs import LogFormat
from ...core.spec import ModelSpec, PoolSpec, SpeculativeSpec
from .request import PoolRequest


@dataclass(frozen=True, kw_only=True)
class EngineLaunch:
    """One engine process of one worker: it starts the ranks of its node, and divides `threads` among them."""

    model: ModelSpec  # `path` is a directory by now
    pool: PoolSpec
    address: str  # IPv4 address of this node, for messages between ranks
    socket: Path  # Unix socket at which the process of node rank 0 serves HTTP, and nowhere else
    key: str  # drawn for this launch: the engine refuses whoever does not have it, and no client has it
    private: Path  # folder that only the user can read, for what must not stand in a process list
    threads: int
    node_rank: int = 0
    rendezvous: str | None = None  # HOST:PORT on node rank 0, where there are several ranks
    rank_secret: str = ""  # by which the ranks of one worker know each other, where there are several
    speculative: SpeculativeSpec | None = None  # `draft_model` is a directory by now

    @property
    def ranks(self) -> int:
        """Processes that compute one model together, on all nodes."""
        return self.pool.layout.ranks

    @property
    def python(self) -> str:
        """Path of the Python interpreter that starts the engine."""
        return self.pool.python or sys.executable


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


def flags(**options: object) -> list[str]:
    """`--long-name value` for every option that is not None."""
    given = ((name.replace("_", "-"), value) for name, value in options.items() if value is not None)
    return [word for name, value in given for word in (f"--{name}", str(value))]
