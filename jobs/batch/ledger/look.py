"""A look at a ledger from outside, whoever works on it: for `slurminfer batch status`, from any node."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....core.errors import BatchError
from ..inputs.plan import InputFile, Plan
from .folder import read_batch, read_plan
from .generations import same_files
from .layout import DRIVERS, PARAMETERS, Generation, Sums
from .ledger import Counts
from .sealed import SealedShards
from .segments import ShardRecords
from .signs import SILENT_S, Sign, Signs

_MOST_DRIVERS = 32


@dataclass(frozen=True, kw_only=True)
class DriverSign:
    """A driver, as its last sign of life in the ledger tells. Times are Unix seconds."""

    host: str
    process: str  # PID, or the name that core/processes/process_id.py gives
    job: str | None = None  # Slurm's id of the job around it
    started_at: float
    seen_at: float  # its last sign of life
    is_living: bool  # it has given one lately, and has not ended
    rows: int = 0  # that it has settled
    completion_tokens: int = 0  # generated for them


@dataclass(frozen=True, kw_only=True)
class LedgerLook:
    """One look."""

    counts: Counts
    drivers: tuple[DriverSign, ...] = ()  # the latest ones
    shards: int
    sealed: int

    @property
    def is_settled(self) -> bool:
        """Whether every row has an answer, or an error."""
        return self.sealed == self.shards


def look(path: Path) -> LedgerLook:
    """Read a ledger's folder; nothing is changed. Raises BatchError where there is none, or where it is damaged."""
    try:
        if read_batch(path) is None:
            raise BatchError(f"no driver has begun on {path.with_suffix('')}: there is no {path / PARAMETERS}")
        generation = Generation.newest(path)
        if generation is None:
            return LedgerLook(counts=Counts.of(0, Sums()), drivers=drivers_of(path), shards=0, sealed=-1)
        plan = read_plan(generation.plan)
        opened = _opened(generation, plan)
    except OSError as error:
        raise BatchError(f"cannot read {path}: {error.strerror}") from error
    sealed = SealedShards(generation, len(plan.shards))
    sealed.refresh()  # last: a shard that was sealed meanwhile counts as such
    found = (sums for shard, sums in opened.items() if shard not in sealed)
    return LedgerLook(
        counts=Counts.of(plan.rows, sum(found, sealed.total)),
        drivers=drivers_of(path),
        shards=len(plan.shards),
        sealed=len(sealed),
    )


def is_answered(path: Path, files: Callable[[], Sequence[InputFile]]) -> bool:
    """Whether every row of the input has its answer, so that nothing is to be sent.

    Args:
        path: the ledger's folder.
        files: the input's files as they are now.

    Raises BatchError.
    """
    if read_batch(path) is None:
        return False
    try:
        generation = Generation.newest(path)
    except OSError as error:
        raise BatchError(f"cannot read {path}: {error.strerror}") from error
    if generation is None:
        return False
    plan = read_plan(generation.plan)
    sealed = SealedShards(generation, len(plan.shards))
    sealed.refresh()
    return len(sealed) == len(plan.shards) and not sealed.total.failed and same_files(plan.files, files())


def _opened(generation: Generation, plan: Plan) -> dict[int, Sums]:
    """What the records of shards add up to that are not sealed."""
    sums = {}
    for shard, found in generation.segments_by_shard(len(plan.shards)).items():
        records = ShardRecords(plan.shards[shard].rows)
        records.refresh(found)
        sums[shard] = records.sums
    return sums


def drivers_of(path: Path) -> tuple[DriverSign, ...]:
    """The latest drivers of a ledger, those that live among them; none where it has none."""
    signs = Signs(path / DRIVERS)
    return tuple(_driver(signs, sign) for sign in signs.all()[:_MOST_DRIVERS])


def _driver(signs: Signs, sign: Sign) -> DriverSign:
    # For one look there is nothing but the clocks to compare; nothing is decided by it.
    is_living = not signs.is_dead(sign) and time.time() - sign.seen_at < SILENT_S
    return DriverSign(
        host=sign.host,
        process=sign.process,
        job=sign.job,
        started_at=sign.started_at,
        seen_at=sign.seen_at,
        is_living=is_living,
        rows=sign.rows,
        completion_tokens=sign.completion_tokens,
    )
