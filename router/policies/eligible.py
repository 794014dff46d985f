"""Which workers may take a request at all: by its model, the spec's rules, the time they have left, and tiers.

It comes before the policy, which chooses one of them.
"""

import math
from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass, field

import msgspec

from ...core.spec.router import RuleSpec
from .aliases import means
from .load import duration, queue_wait
from .policy import RoutedRequest, Worker

# A worker must have so much more time than a request is estimated to take there.
_TIME_FACTOR = 1.5
_TIME_MARGIN_S = 30.0
# Workers with so many times the time of the slowest one, and so many seconds, are not looked at one by one.
_AMPLE_FACTOR = 10.0
_AMPLE_S = 600.0


# What a request can wait for: a model (None: any), and the pools that it may go to (none: all).
Lane = tuple[str | None, tuple[str, ...]]


class PoolRouting(msgspec.Struct, frozen=True, kw_only=True):
    """What routing needs to know of a pool."""

    name: str
    model: str  # by which requests ask for it
    spill_after: float | None = None  # seconds, as in PoolSpec


class Eligible(msgspec.Struct):
    """Who may take a request. Without workers, `reason` says why; `unknown_model`: it is no matter of waiting."""

    workers: Sequence[Worker]
    model: str | None  # what to ask the worker for: not always the name that the client used
    reason: str = ""
    unknown_model: bool = False


@dataclass(slots=True)
class _Group:
    """The workers of a model, or of some pools of it."""

    workers: list[Worker]  # that may get new requests, by slot
    spill: list[tuple[float, list[Worker]]]  # seconds and workers of the pools that are for spill-over, by seconds
    first: list[Worker]  # the others
    by_end: list[Worker] = field(default_factory=list)  # those with a walltime limit, the soonest first
    slowest: tuple[float, float] = (math.inf, math.inf)  # prefill and decode rates


class Eligibility:
    """Knows the pools and rules of the spec, and the workers of the last view."""

    def __init__(self, pools: Sequence[PoolRouting], rules: Sequence[RuleSpec] = ()) -> None:
        self._pools = {pool.name: pool for pool in pools}
        self._rules = rules
        self._workers: Sequence[Worker] = ()
        self._groups: dict[Lane, _Group] = {}
        self.models: list[str] = []  # that there are, by the names of the pools and of the workers
        self.update(())

    def update(self, workers: Sequence[Worker]) -> None:
        """Take all workers of a new view. To be called whenever `choosable` or `ends_at` of one changes, too."""
        self._workers = sorted(workers, key=lambda worker: worker.slot)
        self._groups.clear()
        self.models = sorted({pool.model for pool in self._pools.values()} | {worker.model for worker in workers})

    def lane(self, request: RoutedRequest) -> Lane:
        """The model and the pools of a request, by the first rule that fits."""
        for rule in self._rules:
            if _fits(rule, request, self.models):
                return rule.serve or request.model, rule.pools
        return request.model, ()

    def likely_model(self, name: str | None, tenant: str) -> str:
        """The model that a tenant gets for a name as a rule, whatever its prompt is; empty where there is none.

        What is learned of requests is kept by such names: clients may make up any number of others.
        """
        for rule in self._rules:
            if rule.serve is not None and rule.tenant in (None, tenant) and _is_about(rule, name, self.models):
                return rule.serve
        return name if name is not None and name in self.models else ""

    def pools_of(self, lane: Lane) -> list[str]:
        """The pools of the spec whose workers requests of a lane may go to."""
        model, pools = lane
        return [
            pool.name
            for pool in self._pools.values()
            if model in (None, pool.model) and (not pools or pool.name in pools)
        ]

    def ready(self, lane: Lane) -> Sequence[Worker]:
        """The workers of a lane that may get new requests."""
        return self._group(lane).workers

    def candidates(self, request: RoutedRequest, now: float, tried: Container[int] = ()) -> Eligible:
        """Who may take the request at this time (Unix seconds). tried: slots that have failed with it."""
        lane = model, pools = self.lane(request)
        group = self._group(lane)
        workers = group.workers
        if tried:
            workers = [worker for worker in workers if worker.slot not in tried]
        if not workers:
            return self._nobody(model, pools, bool(group.workers))
        timely = self._timely(request, group, workers, now) if group.by_end else workers
        if not timely:
            return Eligible([max(workers, key=_end)], model)
        return Eligible(_tiers(request, group, timely) if group.spill else timely, model)

    def _group(self, lane: Lane) -> _Group:
        group = self._groups.get(lane)
        if group is None:
            model, pools = lane
            if model is not None and model not in self.models:
                return _Group([], [], [])  # not kept: clients could name any number of models
            group = self._groups[lane] = self._new_group(model, pools)
        return group

    def _new_group(self, model: str | None, pools: tuple[str, ...]) -> _Group:
        workers = [
            worker
            for worker in self._workers
            if worker.choosable and (model is None or worker.model == model) and (not pools or worker.pool in pools)
        ]
        spills: dict[float, list[Worker]] = {}
        first: list[Worker] = []
        for worker in workers:
            pool = self._pools.get(worker.pool)
            after = pool.spill_after if pool is not None else None
            (first if after is None else spills.setdefault(after, [])).append(worker)
        return _Group(
            workers,
            sorted(spills.items()),
            first,
            sorted((worker for worker in workers if worker.ends_at is not None), key=_end),
            (
                min((worker.prefill_rate for worker in workers), default=math.inf),
                min((worker.decode_rate for worker in workers), default=math.inf),
            ),
        )

    def _timely(self, request: RoutedRequest, group: _Group, workers: list[Worker], now: float) -> list[Worker]:
        """The workers that have the time for the request. The list itself, if all have."""
        prefill, decode = group.slowest
        ample = _AMPLE_FACTOR * (request.input_tokens / prefill + request.output_tokens / decode) + _AMPLE_S
        late = set()
        for worker in group.by_end:
            left = _end(worker) - now
            if left > ample:
                break
            if left < duration(request, worker) * _TIME_FACTOR + _TIME_MARGIN_S:
                late.add(worker.slot)
        return [worker for worker in workers if worker.slot not in late] if late else workers

    def _nobody(self, model: str | None, pools: tuple[str, ...], were_tried: bool) -> Eligible:
        if model is not None and model not in self.models:
            there = ", ".join(self.models) or "none"
            return Eligible((), model, f"no worker serves the model '{model}'; models: {there}", unknown_model=True)
        whose = f" of the model '{model}'" if model is not None else ""
        where = f" in the pools {', '.join(pools)}, where a rule sends this request" if pools else ""
        if were_tried:
            return Eligible((), model, f"every ready worker{whose}{where} has failed with this request")
        return Eligible((), model, f"no worker{whose}{where} is ready")


def _is_about(rule: RuleSpec, name: str | None, served: Collection[str]) -> bool:
    return rule.model is None or (name is not None and means(rule, name, served))


def _fits(rule: RuleSpec, request: RoutedRequest, served: Collection[str]) -> bool:
    return (
        _is_about(rule, request.model, served)
        and (rule.tenant is None or rule.tenant == request.tenant)
        and (rule.min_prompt_tokens is None or request.input_tokens >= rule.min_prompt_tokens)
        and (rule.max_prompt_tokens is None or request.input_tokens <= rule.max_prompt_tokens)
    )


def _end(worker: Worker) -> float:
    return math.inf if worker.ends_at is None else worker.ends_at


def _tiers(request: RoutedRequest, group: _Group, workers: list[Worker]) -> Sequence[Worker]:
    """Those of the pools that are not for spill-over, and further pools one by one while the wait is too long."""
    there = {worker.slot for worker in workers}
    chosen = [worker for worker in group.first if worker.slot in there]
    for after, spill in group.spill:
        if any(queue_wait(worker, request.output_tokens) <= after for worker in chosen):
            break
        chosen += [worker for worker in spill if worker.slot in there]
    return chosen
