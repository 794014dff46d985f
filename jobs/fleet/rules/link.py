"""How long the job of a new worker is: one link of the chain by which a pool outlives walltime limits.

A pool with `time_min` leaves the choice to the controller. Slurm starts short jobs sooner, because they fit into holes
of its schedule; but each link loads the model once, and drains once. Of the limits T that a job may have, the one is
taken with the largest share of time in which the worker serves:

    (T - load - drain) / (wait(T) + T)

`wait(T)` is Slurm's forecast for a job of that limit. Of a successor only what is longer than its predecessor has left
counts: that one serves meanwhile. While a successor loads and its predecessor drains, two jobs run for one worker;
`load + drain` is this overlap, the price of a link. Of equal shares the longer limit is taken.

Slurm's backfill may still shorten a job that has to wait (sbatch --time-min), and 22.05 gives it no more than the
least that it accepts. So a job accepts only what is worth more than its wait: the least L >= time_min for which a
job that starts at once serves no smaller a share, (L - load - drain) / L. One that is not expected to wait accepts
nothing less.
"""

import math
import time

import msgspec

from .desired import USUAL_LOAD_S, PoolPlan
from .observed import Member, Past, PoolForecast, Reserved, Start

# A job that ends so soon after its engine is loaded is not worth its start.
LEAST_USE_S = 300.0
_BEFORE_MAINTENANCE_S = 60.0
# A job that has to end before a maintenance may wait for this part of the time until then. After that, only a shorter
# one can still start.
_WAITING_PART = 1 / 8
# Slurm is asked for each candidate: there are few, each at least so many times as long as the next one.
MOST_CANDIDATES, _LEAST_RATIO = 5, 2.0
_MINUTE = 60.0  # Slurm's limits are whole minutes


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The walltime limit of a new job in seconds, and how long Slurm would let the job wait; None: nobody knows."""

    time_s: float
    time_min_s: float | None = None  # the least that the scheduler may shorten it to; None: it may not
    wait_s: float | None = None
    why: str = ""  # where there was a choice


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds the next job of a pool.

    `reserved`: when reservations take away the nodes; None: there is none.
    """

    plan: PoolPlan
    past: Past
    now: float
    reserved: Reserved | None = None
    forecast: PoolForecast | None = None

    @property
    def longest_s(self) -> float:
        """The longest walltime limit that the job may have, in seconds; negative where there is none."""
        longest = self.plan.longest_s
        if self.reserved is None or not self.plan.has_walltime:
            return longest
        left = self.reserved.starts_at - self.now
        return min(longest, left - max(_BEFORE_MAINTENANCE_S, self.past.wait_s, left * _WAITING_PART))

    def wait_s(self, limit: float) -> float | None:
        """How long a job of that limit would wait, in seconds from now; None where nobody knows.

        Infinite for a job that Slurm would refuse. A limit that was not asked for counts as the next longer one.
        """
        start = self._start(limit)
        if self.forecast is None or start is None:
            return None
        return math.inf if start.wait_s is None else max(0.0, self.forecast.asked_at + start.wait_s - self.now)

    def _start(self, limit: float) -> Start | None:
        starts = self.forecast.starts if self.forecast is not None else ()
        return next((one for one in reversed(starts) if one.time_s >= limit), starts[0] if starts else None)


def choose(outlook: Outlook, before: Member | None = None) -> Choice | None:
    """The limit of the next job; None where it would end too soon to be of use.

    Args:
        outlook: what bounds it.
        before: the worker that it takes over from; None: a worker is missing.
    """
    plan, longest = outlook.plan, outlook.longest_s
    left = 0.0 if before is None or before.ends_at is None else before.ends_at - outlook.now
    least = min(max(overhead_s(plan, outlook.past), left if before is not None else 0.0) + LEAST_USE_S, plan.longest_s)
    limits = [limit for limit in candidates(plan, longest) if limit >= least]
    if not limits:
        return None
    chosen = max(limits, key=lambda limit: (_share(outlook, limit, left - plan.drain_s), limit))
    return Choice(
        time_s=chosen,
        time_min_s=_accepted_s(outlook, chosen, left - plan.drain_s, least),
        wait_s=outlook.wait_s(chosen),
        why=_why(outlook, chosen, limits[0]),
    )


def overhead_s(plan: PoolPlan, past: Past) -> float:
    """Seconds of each job in which it does not serve as it should: while it loads, and while it drains."""
    return (USUAL_LOAD_S if past.load_s is None else past.load_s) + plan.drain_s


def _share(outlook: Outlook, limit: float, left: float) -> float:
    """The share of time that will be served, from now or from when the predecessor ends."""
    return _share_after(outlook, limit, (outlook.wait_s(limit) or 0.0) - max(0.0, left))


def _share_after(outlook: Outlook, limit: float, wait: float) -> float:
    return (limit - overhead_s(outlook.plan, outlook.past)) / (max(0.0, wait) + limit)


def _accepted_s(outlook: Outlook, limit: float, left: float, least: float) -> float | None:
    """The least limit that is worth more than the wait for `limit`; None where that is `limit` itself.

    Workers may have waited longer than Slurm forecasts: then the next one may too.
    """
    shortest, wait = outlook.plan.time_min_s, outlook.wait_s(limit)
    if shortest is None:
        return None
    accepted = max(shortest, least)
    if wait is not None:
        lost = 1 - _share_after(outlook, limit, max(wait, outlook.past.wait_s) - max(0.0, left))
        overhead = overhead_s(outlook.plan, outlook.past)
        accepted = max(accepted, math.ceil(overhead / lost / _MINUTE) * _MINUTE if lost > 0 else limit)
    return accepted if accepted < limit else None


def candidates(plan: PoolPlan, longest: float) -> tuple[float, ...]:
    """The limits that a job may have, in seconds, the longest first: a geometric series down to the pool's shortest.

    Only `longest` where the pool leaves no choice; none where that is less than its shortest.
    """
    shortest = plan.time_min_s
    if shortest is None:
        return (longest,)
    if longest <= shortest:
        return (longest,) if longest == shortest else ()
    steps = min(MOST_CANDIDATES - 1, max(1, math.floor(math.log(longest / shortest, _LEAST_RATIO))))
    ratio = (longest / shortest) ** (1 / steps)
    between = {longest / ratio**step // _MINUTE * _MINUTE for step in range(1, steps)}
    return (longest, *sorted((one for one in between if shortest < one < longest), reverse=True), shortest)


def _why(outlook: Outlook, chosen: float, longest: float) -> str:
    """Why this limit, for the user; empty for that of the spec."""
    words, reserved = _words(outlook, chosen, longest), outlook.reserved
    if reserved is None or outlook.longest_s >= outlook.plan.longest_s:
        return words
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(reserved.starts_at))
    return f"{words or slurm_time(chosen)}; the nodes are reserved from {at} on"


def _words(outlook: Outlook, chosen: float, longest: float) -> str:
    """What Slurm forecasts for this limit; empty where there was no choice, or nothing to choose by."""
    wait, against = outlook.wait_s(chosen), outlook.wait_s(longest)
    if outlook.plan.time_min_s is None or wait is None or against is None:
        return ""
    start = "Slurm would refuse any" if wait == math.inf else f"Slurm forecasts a start in {_span(wait)}"
    if chosen == longest:
        return f"{slurm_time(chosen)}: {start}"
    other = "and would refuse the longest" if against == math.inf else f"against {_span(against)} for the longest"
    return f"{slurm_time(chosen)} of up to {slurm_time(longest)}: {start}, {other}"


def slurm_time(seconds: float) -> str:
    """A walltime limit as Slurm writes it, such as 1-12:00:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days}-" if days else "") + f"{hour:02}:{minute:02}:{second:02}"


def _span(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
