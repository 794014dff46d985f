"""One request on its way through admission."""

import asyncio
import enum
from collections.abc import Callable, Hashable

import msgspec

from ..tenants.tenant import Priority


class Place(enum.Enum):
    """Where a request is."""

    OUTSIDE = "outside"  # not seen yet, refused, or gone
    WAITING = "waiting"
    GRANTED = "granted"  # may enter; its coroutine has not gone on yet
    INSIDE = "inside"  # sent to a worker, or about to be


class Ticket(msgspec.Struct, eq=False):
    """A request, as far as admission is concerned. Belongs to one `Admission`.

    Args:
        tenant: name of the tenant.
        lane: what it waits for: requests whose lanes are equal wait for the same workers. The model, and the pools if
            a rule restricts them.
        priority: its class.
        cost: estimated work, in tokens: prompt and answer together.
        weight: the tenant's share, relative to the others' of the same class.
        on_preempt: see `Admission`; a request of class batch without it is never preempted.
    """

    tenant: str
    lane: Hashable
    priority: Priority
    cost: float
    weight: float = 1.0
    on_preempt: Callable[[], None] | None = None
    place: Place = Place.OUTSIDE
    deadline: float | None = None  # set when it first waits
    left_s: float | None = None  # of its time to wait, when it was let in last after it had waited
    preemptions: int = 0
    is_computed: bool = False  # a worker has begun to answer it
    future: asyncio.Future[None] | None = None
