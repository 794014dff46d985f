"""Where the supervisor's pages have from what they show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ...core.spec import DeploymentSpec
from ..control.counters import Counters
from ..control.reports import Reports
from ..fleet.queue import Queue
from ..fleet.registry import Registry
from ..tenants.tenant import Tenant, Usage


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The supervisor's parts, as its pages see them. The callables give what is true at the moment."""

    spec: DeploymentSpec
    registry: Registry
    reports: Reports
    in_flight: Callable[[int], int]  # of the board: requests at the worker with that slot, of all relays
    tenants: Callable[[], Sequence[Tenant]]
    usage: Callable[[], Mapping[str, Usage]]  # by tenant: all that it has ever used
    tokens_today: Callable[[], Mapping[str, int]]  # by tenant: of this UTC day
    queue: Callable[[], Queue]
    endpoint: Callable[[], str]  # URL for clients, such as http://10.0.0.7:30000
    pages: Counters = field(default_factory=Counters)  # of the requests that the pages themselves answer
