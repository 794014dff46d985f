"""Workers and requests for tests and benchmarks of what decides about them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from slurminfer.router.policies.policy import Policy, Route, RoutedRequest
from slurminfer.router.policies.prefix import block_hashes, leading_tokens


@dataclass(slots=True)
class Stub:
    """A worker with the counts that it is given. Its attributes cost policies as little as a real worker's."""

    slot: int
    in_flight: int = 0
    capacity: int = 4
    turn: int = 0
    pool: str = "p"
    model: str = "m"
    choosable: bool = True
    pending_tokens: int = 0
    prefill_rate: float = 1000.0
    decode_rate: float = 50.0
    cache_tokens: int | None = None
    ramp: float = 1.0
    ends_at: float | None = None
    id: str = field(init=False)
    usable_capacity: float = field(init=False)

    def __post_init__(self) -> None:
        self.id = f"{self.pool}-{self.slot}"
        self.usable_capacity = max(1.0, self.capacity * self.ramp)


def request(prompt: bytes = b"", *, session: str | None = None, output: int = 50, **fields) -> RoutedRequest:
    """A request with this prompt, of four bytes a token."""
    blocks = block_hashes(prompt)
    given = {"model": "m", "tenant": "t", "input_tokens": len(prompt) // 4, **fields}
    return RoutedRequest(
        "/v1/completions",
        session=session,
        output_tokens=output,
        blocks=blocks,
        leading_tokens=leading_tokens(4.0),
        **given,
    )


def choose(policy: Policy, asked: RoutedRequest, workers: Sequence[Stub]) -> Route:
    """The policy's choice, which there must be."""
    route = policy.choose(asked, workers)
    assert route is not None
    return route
