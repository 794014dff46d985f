"""Where the supervisor's pages have from what they show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ...core.spec.deployment import DeploymentSpec
from ..batches.store import BatchStore
from ..control.counters import Counters
from ..control.messages import Outlook
from ..control.reports import Reports
from ..fleet.batches import Batches
from ..fleet.controller import ControllerReport
from ..fleet.demand import Demand
from ..fleet.queue import Queue
from ..fleet.registry import Registry
from ..responses.store import ResponseStore
from ..tenants.tenant import Tenant, Usage


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The supervisor's parts, as its pages see them. The callables give what is true at the moment."""

    spec: DeploymentSpec
    registry: Registry
    reports: Reports
    demand: Demand
    in_flight: Callable[[int], int]  # of the board: requests at the worker with that slot, of all relays
    tenants: Callable[[], Sequence[Tenant]]
    usage: Callable[[], Mapping[str, Usage]]  # by tenant: all that it has ever used
    tokens_today: Callable[[], Mapping[str, int]]  # by tenant: of this UTC day
    queue: Callable[[], Queue]
    controller: ControllerReport
    batches: Batches
    outlooks: Callable[[], Mapping[str, Outlook]]  # by pool
    responses: ResponseStore | None  # None: none is kept
    openai_batches: BatchStore
    served_at: int  # Unix seconds: when `serve` wrote the spec
    endpoint: Callable[[], str]  # URL for clients, such as http://10.0.0.7:30000
    pages: Counters = field(default_factory=Counters)  # of this process, with the requests that the pages answer
