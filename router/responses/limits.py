"""How much of kept responses there may be. What is more than that, and the oldest, is removed."""

from dataclasses import dataclass

MOST_RECORD_BYTES = 16 * 2**20  # of one response with its conversation; a larger one is not kept

MOST_LISTED, LISTED = 100, 20  # items of an input, in a page


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may be kept. Each relay looks at its tenant's folder now and then, so there may be a little more."""

    seconds: float  # after which a response is removed
    of_tenant: int = 10_000  # responses
    bytes_of_tenant: int = 2**30
    in_all: int = 100_000
    bytes_in_all: int = 4 * 2**30
