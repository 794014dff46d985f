"""Which worker gets a request. A new policy is a file with its class, and a line in POLICIES."""

from collections.abc import Callable

from ...core.errors import SpecError
from .cache_aware import CacheAware
from .least_load import LeastLoad
from .policy import Policy
from .power_of_two import PowerOfTwo
from .round_robin import RoundRobin
from .session import Session

# By the name that `policy` of [router] has in a spec. Each is made for the relay of an index.
POLICIES: dict[str, Callable[[int], Policy]] = {
    "cache_aware": CacheAware,
    "least_load": LeastLoad,
    "power_of_two": PowerOfTwo,
    "session": Session,
    "round_robin": RoundRobin,
}


def policy_named(name: str, relay: int = 0) -> Policy:
    """A new policy of that name, for the relay of that index. Raises SpecError that lists the policies there are."""
    if name not in POLICIES:
        raise SpecError("router.policy", name, f"expected one of: {', '.join(POLICIES)}")
    return POLICIES[name](relay)
