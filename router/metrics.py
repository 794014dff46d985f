"""What `/metrics` tells (Prometheus). All names stand in this file."""

from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..core.net.http_limits import ConnectionGuard
from .fleet.registry import Registry

# name: (what it says, labels)
REQUESTS = "slurminfer_router_requests_total", "Requests answered, by endpoint and HTTP status", ("path", "status")
DURATION = "slurminfer_router_request_seconds", "Time from a request's head to its answer's last byte", ("path",)
FIRST_BYTE = "slurminfer_router_first_byte_seconds", "Time until a worker's first byte of body has come", ("path",)
RETRIES = "slurminfer_router_retries_total", "Requests sent to another worker after one was lost", ()
UPSTREAM_ERRORS = "slurminfer_router_upstream_errors_total", "Workers lost during a request", ("worker", "kind")
IN_FLIGHT = "slurminfer_router_worker_in_flight", "Requests in flight at a worker", ("worker",)
CAPACITY = "slurminfer_router_worker_capacity", "Requests that a worker computes at once", ("worker",)
STATE = "slurminfer_router_worker_state", "1 for the state that a worker is in", ("worker", "state")
CONNECTIONS = "slurminfer_router_connections", "Open connections; a stranger has not shown a key yet", ("state",)
HEALTHY = "slurminfer_router_worker_healthy", "Whether a worker answered its last probe", ("worker",)

# Seconds: a first token comes after 10 ms to minutes, a long generation takes an hour.
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 600, 3600)


class Metrics:
    """The router's counters, and the workers' gauges as they are when asked for."""

    def __init__(self, registry: Registry, guard: ConnectionGuard) -> None:
        self._collectors = CollectorRegistry()
        self.requests = Counter(*REQUESTS, registry=self._collectors)
        self.duration = Histogram(*DURATION, registry=self._collectors, buckets=_BUCKETS)
        self.first_byte = Histogram(*FIRST_BYTE, registry=self._collectors, buckets=_BUCKETS)
        self.retries = Counter(*RETRIES, registry=self._collectors)
        self.upstream_errors = Counter(*UPSTREAM_ERRORS, registry=self._collectors)
        self._collectors.register(_Gauges(registry, guard))

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._collectors)


def path_label(request: web.Request) -> str:
    """The route's pattern: a label of few values, whatever clients ask for."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "other"


class _Gauges(Collector):
    """Read at scrape time, so that a worker that is gone leaves no stale figure behind."""

    def __init__(self, registry: Registry, guard: ConnectionGuard) -> None:
        self._registry, self._guard = registry, guard

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One sample of each gauge for each worker that there is now, and the connections of clients."""
        in_flight, capacity, state, healthy = (
            GaugeMetricFamily(name, text, labels=labels) for name, text, labels in (IN_FLIGHT, CAPACITY, STATE, HEALTHY)
        )
        for worker in self._registry.all():
            in_flight.add_metric([worker.id], worker.in_flight)
            capacity.add_metric([worker.id], worker.capacity)
            state.add_metric([worker.id, worker.record.state.value], 1)
            healthy.add_metric([worker.id], worker.healthy)
        yield from (in_flight, capacity, state, healthy)
        name, text, labels = CONNECTIONS
        connections = GaugeMetricFamily(name, text, labels=labels)
        for kind, count in self._guard.counts.items():
            connections.add_metric([kind], count)
        yield connections
