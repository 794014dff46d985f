"""What the jobs of backfill pools were expected to serve when they were submitted, and what they have served."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from ...core.rundir import RunDirectory
from ...core.spec.deployment import DeploymentSpec
from .ledger import JobUsage, Ledger

_SECONDS = 3600.0


class HarvestLine(msgspec.Struct, frozen=True, kw_only=True):
    """One backfill pool. Hours are GPU-hours, or node-hours where its workers have no GPU."""

    pool: str
    unit: str  # GPU or node
    jobs: int = 0
    running: int = 0  # of these, so many are not over
    predicted_hours: float = 0.0  # walltime limits at submission, without the time to load and to drain
    achieved_hours: float = 0.0  # from the first token of a job to its end

    def __str__(self) -> str:
        jobs = "1 job" if self.jobs == 1 else f"{self.jobs:,} jobs"
        living = f" ({self.running:,} not over yet)" if self.running else ""
        return (
            f"pool {self.pool}: predicted {_figure(self.predicted_hours)} {self.unit}-hours in {jobs}{living}, "
            f"achieved {_figure(self.achieved_hours)}"
        )


class Harvest(NamedTuple):
    """The lines of a deployment at one time, of which `since` leaves what has come after an earlier one."""

    jobs: Mapping[tuple[str, float], JobUsage]

    def lines(self) -> list[HarvestLine]:
        """One for each pool, by name."""
        return harvests(self.jobs.values())

    def since(self, earlier: "Harvest") -> list[HarvestLine]:
        """What the jobs have served since then, and what was predicted of it: of jobs that ran already, the rest."""
        return harvests(
            _later(usage, earlier.jobs.get(key))
            for key, usage in self.jobs.items()
            if key not in earlier.jobs or earlier.jobs[key].ended_at is None
        )


def harvest(run: RunDirectory, spec: DeploymentSpec) -> Harvest:
    """What is noted of the backfill pools of a deployment; nothing where it has none. Raises RunDirectoryError."""
    if not any(pool.backfill for pool in spec.pool):
        return Harvest({})
    jobs, _ = Ledger(run).read()
    return Harvest({usage.key: usage for usage in jobs if usage.predicted_s is not None})


def harvests(jobs: Iterable[JobUsage]) -> list[HarvestLine]:
    """Add up the jobs that have a prediction, by pool."""
    found: dict[str, HarvestLine] = {}
    for usage in jobs:
        if usage.predicted_s is None:
            continue
        line = found.get(usage.pool) or HarvestLine(pool=usage.pool, unit="GPU" if usage.gpus else "node")
        units = usage.gpus or usage.nodes
        found[usage.pool] = msgspec.structs.replace(
            line,
            jobs=line.jobs + 1,
            running=line.running + (usage.ended_at is None),
            predicted_hours=line.predicted_hours + units * usage.predicted_s / _SECONDS,
            achieved_hours=line.achieved_hours + units * _served_s(usage) / _SECONDS,
        )
    return sorted(found.values(), key=lambda line: line.pool)


def _served_s(usage: JobUsage) -> float:
    return max(0.0, usage.running_s - usage.loading_s)


def _later(usage: JobUsage, earlier: JobUsage | None) -> JobUsage:
    """A job without what it had served before."""
    if earlier is None:
        return usage
    before_s = _served_s(earlier)
    left_s = max(0.0, (usage.predicted_s or 0.0) - before_s)
    return msgspec.structs.replace(usage, predicted_s=left_s, running_s=_served_s(usage) - before_s, loading_s=0.0)


def _figure(hours: float) -> str:
    return f"{hours:,.2f}" if hours < 10 else f"{hours:,.1f}"
