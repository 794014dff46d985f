"""One strategy over the simulated days, and what came of it."""

import time
from dataclasses import dataclass, field
from typing import Any

from .chance import DAY, Fault, background, events
from .cluster import Cluster
from .demand import Batches
from .deployment import MAINTENANCE, NODES, UTILIZATION, pools
from .invariants import Invariants
from .ours import Ours
from .workers import Case, Fleet

TICK_S = 30.0


@dataclass(slots=True)
class Tally:
    """What is counted of one pool, in ticks outside of maintenance."""

    ticks: int = 0
    enough: int = 0  # as many workers served as the load needs
    needed: int = 0  # at least one was needed
    some: int = 0  # and at least one served
    ready: int = 0  # worker-ticks


@dataclass(slots=True)
class Simulation:
    """A strategy on its own copy of the cluster, with the same events as any other one.

    Args:
        strategy: a kind of fleet.
        days: of simulated time.
        seed: of all that happens by chance.
        harvests: whether there is the backfill pool, which only our own strategy can have.
    """

    strategy: type[Fleet]
    days: float = 30.0
    seed: str = "fleet"
    harvests: bool = True
    tallies: dict[str, Tally] = field(default_factory=dict)
    cpu_s: float = 0.0

    def run(self) -> dict[str, Any]:
        """Simulate; the figures."""
        began = time.process_time()
        cases = pools(self.seed, self.days, TICK_S)
        if not self.harvests or not issubclass(self.strategy, Ours):
            cases = [case for case in cases if not case.plan.is_backfill]
        cluster = Cluster(NODES, background(self.seed, NODES, UTILIZATION, self.days), MAINTENANCE)
        fleet = self.strategy(cluster, cases, self.seed)
        invariants = Invariants(fleet) if isinstance(fleet, Ours) else None
        self.tallies = {case.plan.name: Tally() for case in cases}
        coming = events(self.seed, self.days)[::-1]
        in_holes = events(f"{self.seed} holes", self.days, (Fault.CRASH, Fault.HANG, Fault.SILENCE))[::-1]
        retry_at = max(case.broken[1] for case in cases if case.broken[1] < self.days * DAY + 1e9)
        for number in range(int(self.days * DAY / TICK_S)):
            now = number * TICK_S
            cluster.tick(now, TICK_S)
            fleet.tick(now, TICK_S)
            while coming and coming[-1].at <= now:
                fleet.strike(coming.pop(), now)
            while in_holes and in_holes[-1].at <= now:
                fleet.strike(in_holes.pop(), now, is_backfill=True)
            self._serve(fleet, cases, number, now)
            if invariants is None:
                fleet.act(now, TICK_S, number)  # type: ignore[attr-defined]
                continue
            if 0 <= now - retry_at < TICK_S and isinstance(fleet, Ours):
                fleet.ask_for_retry(now)
            invariants.before()
            invariants.fleet.act(now, TICK_S, number)
            invariants.check(now, TICK_S)
        self.cpu_s = time.process_time() - began
        return self._figures(fleet, cases, invariants)

    def _serve(self, fleet: Fleet, cases: list[Case], number: int, now: float) -> None:
        window = fleet.cluster.next_maintenance(now)
        is_open = window is None or now < window[0]
        ready = dict.fromkeys(self.tallies, 0)
        for worker in fleet.workers.values():
            ready[worker.case.plan.name] += worker.serves
        for case in cases:
            name = case.plan.name
            case.requests.tick(number, now, TICK_S, ready[name])
            if not is_open:
                continue
            tally, plan = self.tallies[name], case.plan
            needed = case.requests.needed(number) if plan.is_elastic else plan.fewest
            needed = min(max(needed, plan.fewest), plan.most)
            tally.ticks += 1
            tally.enough += ready[name] >= needed
            tally.ready += ready[name]
            tally.needed += needed > 0
            tally.some += needed > 0 and ready[name] > 0

    def _figures(self, fleet: Fleet, cases: list[Case], invariants: Invariants | None) -> dict[str, Any]:
        found: dict[str, Any] = {"cpu_s": round(self.cpu_s, 1), "pools": {}}
        for case in cases:
            name, asked, tally = case.plan.name, case.requests, self.tallies[case.plan.name]
            found["pools"][name] = {
                "enough": round(tally.enough / tally.ticks, 5),
                "some": round(tally.some / max(1, tally.needed), 5),
                "wait_p95_s": asked.wait_s(0.95),
                "wait_p99_s": asked.wait_s(0.99),
                "requests": sum(asked.waits.values()),
                "refused": asked.refused,
                "cut": asked.cut,
                "gpu_hours": round(fleet.used_s.get(name, 0.0) / 3600),
                "jobs": fleet.serials.get(name, 0),
            }
        found["utilization"] = round(fleet.cluster.node_s / (NODES * self.days * DAY), 3)
        found["walltime_ends"] = fleet.gaps
        found["others"] = {
            "jobs": fleet.cluster.others,
            "mean_wait_s": round(fleet.cluster.others_waited_s / max(1, fleet.cluster.others), 3),
        }
        if invariants is not None:
            found["invariants"] = {"looks": invariants.looks, "broken": dict(invariants.broken)}
            found["examples"] = invariants.examples
            found["restarts"] = invariants.fleet.restarts
            found["harvest"] = {
                case.plan.name: _harvested(invariants.fleet, case) for case in cases if case.plan.is_backfill
            }
            found["queue_wait_s"] = {
                name: round(memory.past.wait_s) for name, memory in invariants.fleet.memory.items()
            }
        return found


def _harvested(fleet: Ours, case: Case) -> dict[str, Any]:
    """What a backfill pool was expected to serve, and has served, in GPU-hours."""
    memory, name = fleet.memory[case.plan.name], case.plan.name
    batches = case.requests
    assert isinstance(batches, Batches)
    return {
        "jobs": fleet.serials.get(name, 0),
        "predicted_gpu_hours": round(memory.predicted_s * case.plan.units / 3600),
        "achieved_gpu_hours": round(memory.ready_s * case.plan.units / 3600),
        "preempted": memory.preempted,
        "missed": memory.missed,
        "lines": int(batches.coming.sum()),
        "lines_done": batches.done,
    }
