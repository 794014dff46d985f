"""What a choice costs: `python -m benchmarks.router.policy_cost`. Microseconds of CPU time, the least of 7 rounds."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from slurminfer.router.policies import POLICIES, policy_named
from slurminfer.router.policies.policy import RoutedRequest
from slurminfer.router.policies.prefix import block_hashes, leading_tokens

_ROUNDS, _CHOICES, _PROMPTS = 7, 1000, 200


@dataclass(slots=True)
class Stub:
    """A worker with fixed counts."""

    slot: int
    in_flight: int
    id: str = ""
    pool: str = "pool"
    model: str = "m"
    choosable: bool = True
    capacity: int = 32
    pending_tokens: int = 0
    prefill_rate: float = 10_000.0
    decode_rate: float = 50.0
    cache_tokens: int | None = 100_000
    ramp: float = 1.0
    turn: int = 0
    ends_at: float | None = None


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
    fleet = [Stub(slot, slot % 5, id=f"pool-{slot}") for slot in range(workers)]
    bodies = [system + os.urandom(3072) for _ in range(_PROMPTS)]
    requests = [_request(body) for body in bodies]
    policy = policy_named(name)
    for number, request in enumerate(requests * 4):
        policy.sent(request, fleet[number % workers])
    return (
        microseconds(lambda number: policy.choose(requests[number % _PROMPTS], fleet)),
        microseconds(lambda number: policy.choose(_request(bodies[number % _PROMPTS]), fleet)),
        microseconds(lambda number: policy.sent(requests[number % _PROMPTS], fleet[number % workers])),
    )


def _request(body: bytes) -> RoutedRequest:
    blocks = block_hashes(body)
    return RoutedRequest("/v1/completions", "m", "t", None, 1024, 64, blocks, leading_tokens(4.0))


if __name__ == "__main__":
    main()
