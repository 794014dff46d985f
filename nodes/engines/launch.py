"""What an engine must be told to start, and what an adapter must say of an engine."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...core.spec import ModelSpec, PoolSpec, SpeculativeSpec


@dataclass(frozen=True, kw_only=True)
class EngineLaunch:
    """One engine process of one worker: it starts the ranks of its node, and divides `threads` among them."""

    model: ModelSpec  # `path` is a directory by now
    pool: PoolSpec
    address: str
    port: int
    key: str  # the deployment's API key: engines refuse whoever does not have it
    private: Path  # folder that only the user can read, for what must not stand in a process list
    threads: int
    node_rank: int = 0
    rendezvous: str | None = None  # HOST:PORT on node rank 0, where there are several ranks
    speculative: SpeculativeSpec | None = None  # `draft_model` is a directory by now

    @property
    def ranks(self) -> int:
        """Processes that compute one model together, on all nodes."""
        return self.pool.layout.ranks

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def python(self) -> str:
        return self.pool.python or sys.executable


class EngineAdapter(Protocol):
    """How to start one kind of engine and how to read it. Everything else about engines is the same."""

    @property
    def default_capacity(self) -> int:
        """Requests computed at once where the spec says nothing."""

    @property
    def in_flight_metrics(self) -> tuple[str, ...]:
        """Gauges of `/metrics` whose sum is zero when the engine is idle."""

    def argv(self, launch: EngineLaunch) -> list[str]:
        """The command line; the API key must not stand in it."""

    def env(self, launch: EngineLaunch) -> dict[str, str]:
        """What the engine needs in its environment besides what the agent has."""


def flags(**options: object) -> list[str]:
    """`--long-name value` for every option that is not None."""
    given = ((name.replace("_", "-"), value) for name, value in options.items() if value is not None)
    return [word for name, value in given for word in (f"--{name}", str(value))]
