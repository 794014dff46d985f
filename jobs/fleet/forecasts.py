"""When Slurm would start one more job of each pool, as `sbatch --test-only` says. Nothing is submitted by it."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from ...core.errors import SlurmError, SlurminferError
from ...core.job import JobRequest
from ...core.records import ROUTER
from ...core.rundir import RunDirectory
from ...core.spec.deployment import DeploymentSpec
from ...slurm.forecast import Forecast
from ...slurm.holes import Holes, Want, holes
from ..serve.requests import Walltime, router_request, worker_request
from .rules import handover, harvest, link
from .rules.desired import Desired, PoolPlan
from .rules.failures import trial
from .rules.observed import Member, Observed, Past, PoolForecast, Stage, Start

# Of each question. No other one is asked in a look that has taken so long.
TIMEOUT_S = 5.0
# In one look Slurm is asked so many times at most. What is left is asked in the next one.
MOST_ASKED = 6
# What Slurm said counts for so long: while a worker is missing, and while one may be needed later.
_WAITING_S, _USUAL_S = 60.0, 300.0
# A forecast that could not be made anew in time is kept for so many times as long.
_KEPT = 2.0

_log = logging.getLogger(__name__)


class _Said(msgspec.Struct, frozen=True):
    at: float  # monotonic seconds
    starts: tuple[Start, ...]  # empty where Slurm has not answered


class Forecaster:
    """Asks Slurm now and then for pools that could need another job soon. What it does not answer stays unknown.

    Args:
        run: the deployment's directory.
        ask: when the job would start, or why not. Raises SlurmError.
        monotonic: seconds.
        ask_holes: for backfill pools, which nodes are idle, and for how long. Raises SlurmError.
    """

    def __init__(
        self,
        run: RunDirectory,
        ask: Callable[[JobRequest], Forecast],
        monotonic: Callable[[], float] = time.monotonic,
        ask_holes: Callable[[], Holes] = holes,
    ) -> None:
        self._run, self._ask, self._monotonic, self._ask_holes = run, ask, monotonic, ask_holes
        self._said: dict[str, _Said] = {}  # by pool

    def forecasts(
        self, spec: DeploymentSpec, desired: Desired, observed: Observed, now: float
    ) -> dict[str, PoolForecast]:
        """What is known now, by pool, after asking anew for the pools whose forecasts are too old.

        Args:
            spec: the deployment's.
            desired: its pools.
            observed: one look, without forecasts.
            now: Unix time of the look.
        """
        patience = {plan.name: patience_s(desired, plan, observed, now) for plan in desired.pools}
        left, begun = MOST_ASKED, self._monotonic()
        for plan in sorted(self._old(desired, patience), key=lambda plan: patience[plan.name] or 0.0):
            limits = link.candidates(plan, _longest_s(plan, observed, now))
            if not 0 < len(limits) <= left:
                continue
            left -= len(limits)
            starts = self._starts(spec, plan, limits, now)
            self._said[plan.name] = _Said(self._monotonic(), starts)
            if not starts or self._monotonic() - begun > TIMEOUT_S:  # nor would it be quicker for another pool
                break
        return self._known(patience, now)

    def _old(self, desired: Desired, patience: Mapping[str, float | None]) -> list[PoolPlan]:
        """The pools to ask for."""
        return [
            plan
            for plan in desired.pools
            if (age := patience[plan.name]) is not None and self._age_s(plan.name) >= max(age, self._pause_s(plan.name))
        ]

    def _pause_s(self, pool: str) -> float:
        """The least time between two rounds of questions for the pool: longer where Slurm has not answered."""
        said = self._said.get(pool)
        return _USUAL_S if said is not None and not said.starts else 0.0

    def _age_s(self, pool: str) -> float:
        said = self._said.get(pool)
        return float("inf") if said is None else self._monotonic() - said.at

    def _known(self, patience: Mapping[str, float | None], now: float) -> dict[str, PoolForecast]:
        found = {}
        for pool, said in self._said.items():
            age = self._age_s(pool)
            if said.starts and pool in patience and age < _KEPT * _USUAL_S:
                found[pool] = PoolForecast(asked_at=now - age, starts=said.starts)
        return found

    def _starts(self, spec: DeploymentSpec, plan: PoolPlan, limits: Sequence[float], now: float) -> tuple[Start, ...]:
        """The answers, the longest limit first; none where Slurm does not answer, or only slowly."""
        begun = self._monotonic()

        def ask(limit: float) -> Start:
            if self._monotonic() - begun > TIMEOUT_S:
                raise SlurmError(f"Slurm takes more than {TIMEOUT_S:g} s to answer")
            return _start(limit, self._ask(self._request(spec, plan.name, limit)), now)

        try:
            if plan.is_backfill:
                return self._starts_now(spec, plan, limits, ask, now)
            return tuple(ask(limit) for limit in limits)
        except SlurminferError as error:
            _log.warning("no forecast for %s: %s", plan.name, error)
            return ()

    def _starts_now(
        self, spec: DeploymentSpec, plan: PoolPlan, limits: Sequence[float], ask: Callable[[float], Start], now: float
    ) -> tuple[Start, ...]:
        """What `ask` says, as far as it matters for the longest limit that starts now; with a start now for a job that
        lasts as long as nodes are idle until other jobs want them, and with the room that idle nodes have.
        """
        longest = ask(limits[0])
        if longest.wait_s is None:
            return (longest,)
        pool = next(one for one in spec.pool if one.name == plan.name)
        want = Want(
            partitions=pool.partition, nodes=pool.nodes, cpus=pool.cpus_per_task, is_whole=pool.gpus_per_node > 0
        )
        seen, begin = self._ask_holes(), now + harvest.NOW_S
        until = seen.until(want)
        hole_s = -math.inf if until is None else until - begin
        if harvest.is_now(longest):
            starts = [longest]
        elif hole_s >= limits[-1]:
            limit = min(limits[0], hole_s // 60 * 60)  # Slurm's limits are whole minutes
            starts = (
                [Start(time_s=limit, wait_s=0.0)] if limit == limits[0] else [longest, Start(time_s=limit, wait_s=0.0)]
            )
        else:
            starts = [longest, *_until_now(limits[1:], ask)]
        return tuple(
            msgspec.structs.replace(start, room=seen.room(want, begin + start.time_s) or None) for start in starts
        )

    def _request(self, spec: DeploymentSpec, pool: str, limit: float) -> JobRequest:
        """The job that the pool would get next."""
        if pool == ROUTER:
            return router_request(spec, self._run)
        worker_id = f"{pool}-{self._run.read_serials().get(pool, 0)}"
        return worker_request(spec, self._run, worker_id, 0, Walltime.of(limit, None))


def _until_now(limits: Sequence[float], ask: Callable[[float], Start]) -> list[Start]:
    """The answers for limits, the longest first, up to the first that starts now; where the shortest does not, only
    its."""
    if not limits:
        return []
    shortest = ask(limits[-1])
    if not harvest.is_now(shortest):
        return [shortest]
    found: list[Start] = []
    for limit in limits[:-1]:
        found.append(ask(limit))
        if harvest.is_now(found[-1]):
            return found
    return [*found, shortest]


def patience_s(desired: Desired, plan: PoolPlan, observed: Observed, now: float) -> float | None:
    """How old a forecast of the pool may be, in seconds; None where no job of it is near.

    One is near while a worker is missing, and while a worker that has no successor may get one.
    """
    if observed.members is None or not plan.has_walltime:
        return None
    past = observed.past.get(plan.name, Past())
    staying = [one for one in observed.members if one.pool == plan.name and one.stage is not Stage.LEAVING]
    if trial(past, staying, now).gave_up:
        return None
    taken = handover.successors(staying)
    if len(staying) - len(taken) < _number(desired, plan, observed, past):
        return harvest.patience_s(staying, now) if plan.is_backfill else _WAITING_S
    is_near = any(one.id not in taken and _may_get_successor(plan, one, now) for one in staying)
    return _USUAL_S if is_near and not plan.is_backfill else None


def _number(desired: Desired, plan: PoolPlan, observed: Observed, past: Past) -> int:
    """The workers that the pool should have, and one more where requests wait and it may have more."""
    wanted = desired.pinned.get(plan.name, plan.initial if past.wanted is None else past.wanted)
    demand = (observed.demand or {}).get(plan.name)
    is_short = demand is not None and demand.waiting > 0 and plan.name not in desired.pinned
    return min(wanted + 1, plan.most) if is_short else wanted


def _may_get_successor(plan: PoolPlan, member: Member, now: float) -> bool:
    return member.hung_since is not None or handover.earliest(plan, member) <= now


def _longest_s(plan: PoolPlan, observed: Observed, now: float) -> float:
    past = observed.past.get(plan.name, Past())
    return link.Outlook(plan=plan, past=past, now=now, reserved=observed.reserved.get(plan.name)).longest_s


def _start(limit: float, found: Forecast, now: float) -> Start:
    if found.starts_at is None:
        return Start(time_s=limit, reason=found.reason)
    return Start(time_s=limit, wait_s=max(0.0, found.starts_at - now))
