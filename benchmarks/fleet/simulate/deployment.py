"""The simulated deployment: four pools, and what is asked of them."""

import random
from collections.abc import Callable

import msgspec
import numpy as np

from slurminfer.jobs.fleet.rules.desired import PoolPlan

from .chance import DAY, HOUR, curve, requests, sessions
from .demand import Batches, Requests
from .workers import Case

NODES = 2000
UTILIZATION = 0.97  # by other people's jobs, if they never had to wait
MAINTENANCE = ((9 * DAY + 8 * HOUR, 9 * DAY + 14 * HOUR), (23 * DAY + 20 * HOUR, 24 * DAY + 4 * HOUR))
_BROKEN = (14 * DAY + 10 * HOUR, 14 * DAY + 12 * HOUR)


def pools(seed: str, days: float, tick_s: float) -> list[Case]:
    """The pools, anew for each strategy. Nobody asks during maintenance.

    chat      eight workers, a day each
    code      four workers of two nodes, eight hours each; for two hours of one day none can start
    peak      two to sixteen preemptible workers by the load, four hours each
    sessions  none to two workers by the load, two hours each, at most 40 GPU-hours a day
    holes     up to 24 workers in holes of the schedule, 20 minutes to four hours each, at most 1,200 GPU-hours a day,
              for a batch every morning, which eight to 24 of them would compute in eight hours
    """
    steady, peaks, busy = (
        curve(f"{seed} a", days, tick_s),
        curve(f"{seed} b", days, tick_s),
        sessions(seed, days, tick_s),
    )

    for asking in (steady, peaks, busy):
        for begin, end in MAINTENANCE:
            asking[int(begin / tick_s) : int(end / tick_s)] = 0.0

    def asked(name: str, per_s: "np.typing.NDArray[np.float64]", takes_s: float, capacity: int) -> Requests:
        return Requests(requests(f"{seed} {name}", per_s, tick_s), per_s, takes_s, capacity)

    full = 32 / 20.0  # requests a second of a worker of 32 requests at once, of 20 s each
    return [
        Case(_plan("chat", 8, 24, units=4), asked("chat", full * 6.0 * steady, 20.0, 32), 1, 240.0, 8),
        Case(
            _plan("code", 4, 8, units=8),
            asked("code", full * 2.8 * steady, 20.0, 32),
            nodes=2,
            load_s=420.0,
            fixed=4,
            broken=_BROKEN,
        ),
        Case(
            _plan("peak", 4, 4, units=4, fewest=2, most=16),
            asked("peak", full * 11.0 * peaks, 20.0, 32),
            nodes=1,
            load_s=150.0,
            fixed=16,
            is_preemptible=True,
        ),
        Case(
            _plan("sessions", 1, 2, units=4, fewest=0, most=2, hours_per_day=40.0),
            asked("sessions", 0.5 * busy, 20.0, 32),
            nodes=1,
            load_s=90.0,
            fixed=1,
        ),
        Case(
            msgspec.structs.replace(
                _plan("holes", 0, 4, units=4, fewest=0, most=24, hours_per_day=1200.0),
                time_min_s=1200.0,
                is_backfill=True,
            ),
            Batches(_batches(seed, days, tick_s, full), np.zeros(int(days * DAY / tick_s)), 20.0, 32),
            nodes=1,
            load_s=150.0,
            fixed=0,
        ),
    ]


def _batches(seed: str, days: float, tick_s: float, per_s: float) -> "np.typing.NDArray[np.int64]":
    """Requests that come in each tick, of which a worker computes `per_s` a second: many at six in the morning."""
    chance, found = random.Random(f"{seed} batches"), np.zeros(int(days * DAY / tick_s), dtype=np.int64)
    for at in range(int(6 * HOUR / tick_s), len(found), int(DAY / tick_s)):
        found[at] = int(chance.uniform(8, 24) * 8 * HOUR * per_s)
    return found


def _plan(
    name: str, initial: int, hours: float, *, units: int, fewest: int = -1, most: int = -1, **more: float
) -> PoolPlan:
    return PoolPlan(
        name=name,
        model=name,
        fewest=initial if fewest < 0 else fewest,
        most=initial if most < 0 else most,
        initial=initial,
        time_s=hours * HOUR,
        units=units,
        **more,  # type: ignore[arg-type]
    )


Pools = Callable[[str, float, float], list[Case]]
