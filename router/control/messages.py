"""What supervisor and relays tell each other, as msgpack over the channel between them."""

from typing import Any

import msgspec

from ..tenants.tenant import Tenant, Usage
from .counters import Counters


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One life of a worker, as the supervisor sees it. Times are Unix seconds."""

    slot: int  # its column of the board; never that of another life while any relay may still count requests there
    id: str
    pool: str
    engine: str
    model: str
    job: str
    epoch: int
    host: str
    url: str | None  # of its gate
    socket: str | None  # of its engine, on `host`
    identity: str  # path of the certificate for the gate
    key: str  # the engine's API key
    capacity: int
    state: str  # of the record: starting, ready, draining, gone
    choosable: bool  # may get new requests
    trouble: str  # why not
    has_stopped: bool = False  # it answers nobody: what waits there goes to other workers at once
    ends_at: float | None = None
    move_by: float | None = None  # requests still in flight then are moved to other workers
    healthy_since: float | None = None  # since when it is trusted again after an ejection, for its slow re-entry
    cache_tokens: int | None = None  # what its KV cache holds, where the engine says
    running: int | None = None  # requests that the engine itself says it computes
    waiting: int | None = None


class Setup(msgspec.Struct, frozen=True, tag="setup", kw_only=True):
    """To a relay, first: what it is."""

    index: int  # its row of the board
    relays: int
    router: dict[str, Any]  # [router] of the spec, as builtins
    pools: list[dict[str, Any]]  # of the spec: name, and what routing needs
    control_socket: str  # Unix socket of the supervisor's pages
    responses: str = ""  # folder of the responses that are kept; "": none is
    key: str = ""  # the deployment's own, which sglang-router asks clients for


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a pool without a worker gets one."""

    # False: none comes until a user changes something. None: nobody knows.
    may_come: bool | None = None
    reason: str = ""  # why no worker is ready, for people
    may_sleep: bool = False  # without a worker it is as well as with one: a request waits until one was started


class View(msgspec.Struct, frozen=True, tag="view"):
    """To a relay: all workers, and the outlook by pool, whenever something has changed."""

    workers: list[WorkerView]
    outlooks: dict[str, Outlook] = {}


class Tenants(msgspec.Struct, frozen=True, tag="tenants"):
    """To a relay: all tenants, and what each has used today (UTC) before this supervisor began to count."""

    tenants: list[Tenant]
    tokens_today: dict[str, int]


class Certificates(msgspec.Struct, frozen=True, tag="certificates", kw_only=True):
    """To a relay: certificates with their private keys, as PEM. They come again when they have changed."""

    clients: str | None = None  # of HTTPS for clients
    # Of the port for our own commands (core/net/identity.py). None: do not accept there yet.
    commands: str | None = None


class Replaced(msgspec.Struct, frozen=True, tag="replaced"):
    """To a relay: whether clients find another router now, so that they should not keep their connections here."""

    is_replaced: bool
    shares_port: bool = False  # the other router accepts from the same listening sockets


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """To a relay: accept no more, finish what is in flight, end."""

    seconds: float


class Blamed(msgspec.Struct, frozen=True, tag="blamed", kw_only=True):
    """From a relay: what is held against a request that got no answer; router/relay/losses/blame.py."""

    request: bytes  # SHA-256 of its tenant and its body
    points: float  # 0: it got one
    slots: list[int]  # of the workers that were lost while they had it
    until: float  # monotonic seconds, which are the same in all processes of a machine


class BlamedRequests(msgspec.Struct, frozen=True, tag="blamed_requests"):
    """To a relay: all that relays have told of, the oldest first."""

    requests: list[Blamed]


class Suspect(msgspec.Struct, frozen=True, tag="suspect", kw_only=True):
    """From a relay: a request has failed at a worker in a way that makes the worker suspect."""

    slot: int
    reason: str
    kind: str  # connect, lost, body, stream, status (5xx), garbage, silent, refusing: see router/fleet/trust.py
    at: float  # Unix time


class LaneLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What requests of a lane (router/policies/eligible.py) ask of its workers. Times are seconds before the report."""

    model: str | None  # None: any
    pools: tuple[str, ...]  # empty: all
    waiting: int  # requests of priority batch left out
    waited_s: float  # for so long the oldest of these has waited
    idle_s: float  # since a request was computed or has waited last; 0 while one is or does, infinite before the first
    batch_waiting: int = 0  # requests of priority batch
    batch_waited_s: float = 0.0


class Report(msgspec.Struct, tag="report", kw_only=True):
    """From a relay, once a second and at its end: all its counters, cumulative since its start."""

    counters: Counters
    usage: dict[str, Usage]  # by tenant
    queued: dict[str, int]  # requests that wait now, by priority
    connections: dict[str, int]  # of clients, by state
    rates: dict[int, tuple[float, float]]  # by worker's slot: prefill and decode tokens/s as learned here
    served: dict[int, int] = {}  # by worker's slot: requests that it has answered well since the relay's start
    lanes: tuple[LaneLoad, ...] = ()  # that there were requests of, of models that are served only


State = View | Tenants | Certificates | BlamedRequests | Replaced  # a later one says all that an earlier one has said
ToRelay = Setup | State | Drain
FromRelay = Suspect | Blamed | Report
