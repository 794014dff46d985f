"""What a choice costs: `python -m benchmarks.router.policy_cost`. Microseconds of CPU time, the least of 7 rounds."""

import os
import time
from collections.abc import Callable

from slurminfer.router.policies import POLICIES, policy_named
from slurminfer.router.policies.prefix import block_hashes
from tests.support.policy_workers import Stub, request

_ROUNDS, _CHOICES, _PROMPTS = 7, 1000, 200


def microseconds(act: Callable[[int], object]) -> float:
    """Time of one call."""
    rounds = []
    for _ in range(_ROUNDS):
        began = time.thread_time()
        for number in range(_CHOICES):
            act(number)
        rounds.append((time.thread_time() - began) / _CHOICES * 1e6)
    return min(rounds)


def main() -> None:
    """Print hashing, and each policy's choose and sent."""
    for size in (4 << 10, 64 << 10, 1 << 20):
        print(f"hashes of {size:8} bytes: {hashing(os.urandom(size)):8.1f} us")
    for workers in (8, 256):
        for name in POLICIES:
            choose, hashed, sent = choosing(name, workers)
            costs = f"choose {choose:6.1f}  with hashes {hashed:6.1f}  sent {sent:5.1f}"
            print(f"{workers:4} workers, 4 KiB, {name:13} {costs}")


def hashing(prompt: bytes) -> float:
    """The hashes of a prompt."""
    return microseconds(lambda _: block_hashes(prompt))


def choosing(name: str, workers: int) -> tuple[float, float, float]:
    """A policy's choice for a prompt of 4 KiB of which 1 KiB is common to all; with the hashes; and to note it."""
    system = os.urandom(1024)
    fleet = [
        Stub(slot, slot % 5, capacity=32, prefill_rate=10_000.0, cache_tokens=100_000, pool="pool")
        for slot in range(workers)
    ]
    bodies = [system + os.urandom(3072) for _ in range(_PROMPTS)]
    requests = [request(body, output=64) for body in bodies]
    policy = policy_named(name)
    for number, one in enumerate(requests * 4):
        policy.sent(one, fleet[number % workers])
    return (
        microseconds(lambda number: policy.choose(requests[number % _PROMPTS], fleet)),
        microseconds(lambda number: policy.choose(request(bodies[number % _PROMPTS], output=64), fleet)),
        microseconds(lambda number: policy.sent(requests[number % _PROMPTS], fleet[number % workers])),
    )


if __name__ == "__main__":
    main()
