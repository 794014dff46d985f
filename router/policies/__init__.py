"""Which worker gets a request. A new policy is a file with its class, and a line in POLICIES."""

from ...core.errors import SpecError
from .least_loaded import LeastLoaded
from .policy import Policy

# By the name that `policy` of [router] has in a spec.
POLICIES: dict[str, type[Policy]] = {"least_loaded": LeastLoaded}


def policy_named(name: str) -> Policy:
    """A new policy of that name. Raises SpecError that lists the policies there are."""
    if name not in POLICIES:
        raise SpecError("router.policy", name, f"expected one of: {', '.join(POLICIES)}")
    return POLICIES[name]()
