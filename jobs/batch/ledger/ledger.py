"""A batch's ledger, as one driver uses it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..inputs.plan import Plan, Shard
from ..parameters import Parameters
from .record import Record


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How far a batch is, over all its drivers."""

    rows: int  # of the input; those that are blank are taken out as they are found
    answered: int  # blank ones left out
    failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Ledger:
    """The ledger of one batch, opened by one driver. A context manager; closing gives all claims back.

    All methods raise BatchError; whatever was written before stays valid. For one thread, but for `sync`.

    Args:
        path: its folder, `OUTPUT.ledger`; made if it is not there.
        parameters: of this driver. Others than the ledger's raise BatchError, which says what differs.
        plan: makes the plan where there is none, or where input files have changed (`fresh` says so).
        retry_failed: rows that have failed before are to be tried again; done by the first of the drivers at work only.
    """

    def __init__(
        self, path: Path, parameters: Parameters, plan: Callable[[], Plan], *, retry_failed: bool = True
    ) -> None:
        raise NotImplementedError

    path: Path
    parameters: Parameters
    plan: Plan

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        raise NotImplementedError

    def claim(self, wanted: Callable[[Shard], bool] = lambda shard: True) -> Shard | None:
        """The next shard that is not sealed and that no living driver has, for this one from now on; None: none now."""
        raise NotImplementedError

    def settled(self, shard: Shard) -> set[int]:
        """Rows of a claimed shard that need nothing more, by what earlier drivers have left."""
        raise NotImplementedError

    def append(self, shard: Shard, record: Record) -> None:
        """Keep a record. It survives this process soon, and the machine after the next `sync`."""
        raise NotImplementedError

    def sync(self) -> None:
        """Have all records on the disk, and this driver's sign of life renewed. May wait for the disk: from a thread."""
        raise NotImplementedError

    def seal(self, shard: Shard) -> None:
        """All rows of a claimed shard are settled: write them once, in order. From a thread."""
        raise NotImplementedError

    def release(self, shard: Shard) -> None:
        """Give back a claimed shard that is not done."""
        raise NotImplementedError

    def is_sealed(self, number: int) -> bool:
        """Whether all rows of a shard are settled. Asks the filesystem only where it was not before."""
        raise NotImplementedError

    def records(self, number: int) -> Iterator[Record]:
        """The records of a shard, one for each row that has one, in order; all rows of a sealed one."""
        raise NotImplementedError

    def counts(self) -> Counts:
        """How far the batch is. Asks the filesystem."""
        raise NotImplementedError

    @property
    def others(self) -> int:
        """How many other drivers are at work now."""
        raise NotImplementedError
