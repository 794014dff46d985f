"""Which tokens a request may get, and which it gets more or less often, beside what the model says."""

from collections.abc import Mapping
from dataclasses import dataclass, field

BAN, FORCE = -100.0, 100.0  # OpenAI's: never, and no others


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TokenRules:
    """What all choices of a request share. Compared by identity: the sampler keeps tensors for each."""

    bias: Mapping[int, float] = field(default_factory=dict)  # added to logits; BAN and FORCE are what they say
    allowed: frozenset[int] | None = None  # None: all
    bad_words: tuple[tuple[int, ...], ...] = ()  # runs of tokens that the answer never has

    @property
    def only(self) -> frozenset[int] | None:
        """The tokens of which one must be next; None: any that is not banned."""
        forced = frozenset(token for token, value in self.bias.items() if value >= FORCE)
        left = forced or self.allowed
        if left is None:
            return None
        if forced and self.allowed is not None:
            left = forced & self.allowed
        return left - self.banned

    @property
    def banned(self) -> frozenset[int]:
        """The tokens that never come."""
        return frozenset(token for token, value in self.bias.items() if value <= BAN)
