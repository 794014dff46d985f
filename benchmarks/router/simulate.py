"""Our policies against models of the peers', over simulated workers: `python -m benchmarks.router.simulate`.

Virtual time: the same figures in every run. The peers' routers themselves are measured by `make bench-router`.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

from slurminfer.router.policies import policy_named
from slurminfer.router.policies.load import least_loaded
from slurminfer.router.policies.policy import Memoryless, Policy, Route, RoutedRequest, Worker
from tests.support.simulated_fleet import (
    Outcome,
    Prompts,
    Speed,
    chats,
    closed_loop,
    open_loop,
    shared_prefixes,
    unique_prompts,
)

from . import sharing


class Random(Memoryless):
    """Any worker."""

    def __init__(self) -> None:
        super().__init__()
        self._random = random.Random(5)

    def choose(self, request: RoutedRequest, workers: Sequence[Worker]) -> Route | None:
        """A random one."""
        return Route(self._random.choice(workers), "load")


class SglangCacheAware(Memoryless):
    """What sglang-router 0.3.2 calls cache_aware.

    One tree of all prompts. In balance, the worker that the longest known beginning went to, if that is more than 0.3
    of the prompt, else the one of which the tree has the least. Out of balance (64 requests and 1.5 times between the
    most and the least loaded worker), the least loaded one. The tree never forgets here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tree: dict[int, int] = {}  # block -> slot that it went to last
        self._sizes = Counter[int]()  # blocks that went to a slot

    def choose(self, request: RoutedRequest, workers: Sequence[Worker]) -> Route | None:
        """By the tree, or by load."""
        loads = [worker.in_flight for worker in workers]
        if max(loads) - min(loads) > 64 and max(loads) > 1.5 * min(loads):
            return Route(least_loaded(workers), "load")
        slot, matched = -1, 0
        for block in request.blocks:
            if block not in self._tree:
                break
            slot, matched = self._tree[block], matched + 1
        if request.blocks and matched > 0.3 * len(request.blocks):
            return Route(next(worker for worker in workers if worker.slot == slot), "cache")
        return Route(min(workers, key=lambda worker: self._sizes[worker.slot]), "load")

    def sent(self, request: RoutedRequest, worker: Worker) -> None:
        """The tree grows."""
        for block in request.blocks:
            self._sizes[worker.slot] += self._tree.get(block) != worker.slot
            self._tree[block] = worker.slot


POLICIES: dict[str, Callable[[], list[Policy]]] = {
    "random": lambda: [Random()],
    "sglang-router": lambda: [SglangCacheAware()],
    "round_robin": lambda: [policy_named("round_robin")],
    "least_load": lambda: [policy_named("least_load")],
    "power_of_two": lambda: [policy_named("power_of_two")],
    "cache_aware": lambda: [policy_named("cache_aware")],
    "cache_aware, 4 relays": lambda: [policy_named("cache_aware", relay) for relay in range(4)],
}
SPEED = Speed()
# 0.73 of what all caches hold, 5.8 times what one holds.
_PREFIX_BLOCKS = 32
_PREFIXES = int(0.73 * 8 * SPEED.cache_tokens / (_PREFIX_BLOCKS * 64))
LOADS: dict[str, Prompts] = {
    "shared prefixes": shared_prefixes(_PREFIXES, _PREFIX_BLOCKS),
    "shared prefixes, Zipf": shared_prefixes(_PREFIXES * 4, _PREFIX_BLOCKS, zipf=0.9),
    "shared prefixes after a system prompt": shared_prefixes(_PREFIXES, _PREFIX_BLOCKS, system=8),
    "3 hot prefixes": shared_prefixes(3, _PREFIX_BLOCKS),
    "one system prompt": shared_prefixes(1, 16, tail_blocks=16),
    "nothing shared": unique_prompts(16),
}


def saturation(policies: list[Policy], prompts: Prompts, requests: int = 6000) -> Outcome:
    """Throughput of 8 workers with 256 clients."""
    return closed_loop(policies, prompts, clients=256, requests=requests, workers=8, speed=SPEED)


def as_measured() -> None:
    """Print the load `shared` of the part `sharing` with its costs: the rates one by one, from empty caches."""
    costs, output = sharing.COSTS, sharing.OUTPUT_TOKENS
    prompts = shared_prefixes(sharing.PREFIXES, sharing.PREFIX_TOKENS // 64, tail_blocks=sharing.OWN_TOKENS // 64)
    rows = [
        ("sglang-router", POLICIES["sglang-router"], True, math.inf),
        ("cache_aware, 2 relays", _two_relays, True, 1.25),
        ("  engines do not say", _two_relays, False, 1.25),
    ]
    print("the benchmark `sharing`, 20 s at each rate: requests/s, TTFT p90 in seconds, hits")
    for name, make, says, overcommit in rows:
        speed = Speed(costs.step_s, 0.0, 1 / costs.prefill_rate, costs.batch, costs.cache_tokens, says)
        print(f"  {name:22}", end="")
        for rate in sharing.RATES["shared"]:
            found = open_loop(
                make(), lambda number: (*prompts(number)[:2], output), rate=rate, requests=int(20 * rate),
                workers=sharing.WORKERS, speed=speed, overcommit=overcommit, usual_output=output,
            )  # fmt: skip
            print(f"   {found.throughput:5.1f} {found.p90_ttft:5.2f} {found.hit_rate:.2f}", end="", flush=True)
        print()


def _two_relays() -> list[Policy]:
    return [policy_named("cache_aware", relay) for relay in range(2)]


def main() -> None:
    """Print a table for each load."""
    as_measured()
    for load, prompts in LOADS.items():
        print(f"\n{load}: 256 clients; then TTFT p90 in seconds at 20 to 120% of the best throughput")
        results = {name: saturation(make(), prompts) for name, make in POLICIES.items()}
        best = max(one.throughput for one in results.values())
        for name, result in results.items():
            swept = [
                open_loop(POLICIES[name](), prompts, rate=best * part, requests=3000, workers=8, speed=SPEED).p90_ttft
                for part in (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.2)
            ]
            print(f"  {name:22} {result}   " + " ".join(f"{one:6.2f}" for one in swept), flush=True)
    print("\nchats of 8 turns, 8 begun a second")
    for name, make in POLICIES.items():
        outcome = chats(make(), rate=8.0, conversations=600, turns=8, workers=8, speed=SPEED)
        print(f"  {name:22} {outcome}", flush=True)


if __name__ == "__main__":
    main()
