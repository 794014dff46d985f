"""Which worker gets a request. One file per policy; POLICIES has them by the name that router.policy in a spec has."""

from .least_loaded import LeastLoaded
from .policy import Policy

POLICIES: dict[str, type[Policy]] = {"least_loaded": LeastLoaded}
