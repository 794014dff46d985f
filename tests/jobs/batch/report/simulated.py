"""A batch in a simulated engine: so many requests at once, and a speed that depends on how many there are."""

import heapq
from collections.abc import Sequence

from slurminfer.jobs.batch.report.tally import Timing


def run(lengths: Sequence[int], slots: int, *, prompt: int = 100, ramp_s: float = 0.0) -> list[Timing]:
    """Each request is generated with the same speed as all that are under way, which is the less the more there are.

    The engine's tokens/s grow with the requests n under way as n / (0.02 + 0.0005 n): a step is a fixed time and some
    for each request. Prompts are taken to cost nothing. Times are exact, by the tokens that each request has got.
    """
    waiting, now, given = iter(enumerate(lengths)), 0.0, 0.0
    done: list[Timing] = []
    active: list[tuple[float, int, float]] = []  # tokens given to each when it ends, place, when it began
    while True:
        allowed = slots if now >= ramp_s else max(1, int(slots * now / ramp_s))
        while len(active) < allowed and (item := next(waiting, None)) is not None:
            heapq.heappush(active, (given + item[1], item[0], now))
        if not active:
            return done
        step_s = 0.02 + 0.0005 * len(active)
        end, place, began = active[0]
        tokens = end - given
        if now < ramp_s and allowed < slots:
            tokens = min(tokens, max(ramp_s / slots, 1e-3) / step_s)
        given, now = given + tokens, now + tokens * step_s
        if given >= end - 1e-9:
            heapq.heappop(active)
            done.append(
                Timing(began=began, ended=now, prompt_tokens=prompt, cached_tokens=0, completion_tokens=lengths[place])
            )
